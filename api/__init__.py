"""The outside of the hub: HTTP, WebSocket, command line. FastAPI is imported nowhere else.

`app.py` puts everything together; `gateway.py` is the Ray actor around it. Hot paths (the streams, webhooks,
API inbound) are bare ASGI; everything else is under `rest/`.
"""
