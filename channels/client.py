"""The one network piece of the adapters: makes the request, and says what became of it."""

from __future__ import annotations

import httpx

from channels.adapter import Adapter, Outcome, Outgoing
from hub.settings import Channel

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 20.0
CONNECTIONS_MAX_COUNT = 64


class ProviderClient:
    def __init__(self) -> None:
        self._http: httpx.AsyncClient | None = None

    async def send(self, adapter: Adapter, channel: Channel, outgoing: Outgoing, base_url: str) -> Outcome:
        """Never raises but when cancelled. An error before the request was out is `retry`, after it `unknown`."""
        request = adapter.request(channel, outgoing, base_url)
        try:
            answer = await self._client().request(
                request.method, request.url, headers=request.headers, content=request.body
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return Outcome("retry", code="unreachable", detail=type(error).__name__)
        except httpx.InvalidURL as error:
            return Outcome("failed", code="invalid_url", detail=str(error))
        except httpx.HTTPError as error:
            return Outcome("unknown", code="no_answer", detail=type(error).__name__)
        return adapter.outcome(answer.status_code, answer.headers, answer.content)

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
            limits = httpx.Limits(max_connections=CONNECTIONS_MAX_COUNT)
            self._http = httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False, follow_redirects=False)
        return self._http
