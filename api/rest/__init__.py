"""The REST API: FastAPI routers over the gateway's services. No hot path lives here."""
