"""The ports of the hub in MongoDB."""
