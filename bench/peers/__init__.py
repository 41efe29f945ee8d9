"""The parties of a conversation: customers, agents, providers, API clients."""
