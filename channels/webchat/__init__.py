"""Web chat: the customer's browser is the provider, and our own socket the wire."""
