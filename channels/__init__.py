"""Adapters: one folder for each kind of provider, and the registry that finds them.

`inbound.py` is pure (bytes to commands), `outbound.py` is pure (message to request and response to
outcome); only `client.py` talks to a network. An adapter never imports another adapter.
"""
