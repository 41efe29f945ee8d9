"""The truth check: what the hub itself says it holds, through its REST API, against what was acknowledged."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from bench.words import find

READ_MAX_AT_ONCE = 8
PAGE = 200


async def numbers_in_journal(url: str, key: str, channel: str, mark: str) -> dict[int, int]:
    """How often each message number of this run stands in the hub. Reads every conversation of the channel."""
    found: dict[int, int] = {}
    async with httpx.AsyncClient(base_url=url, headers={"X-API-Key": key}, trust_env=False, timeout=60) as http:
        slots = asyncio.Semaphore(READ_MAX_AT_ONCE)

        async def read(conversation: str) -> None:
            after = 0
            while True:
                async with slots:
                    page = await _get(
                        http, f"/v1/conversations/{conversation}/messages", {"after": after, "limit": PAGE}
                    )
                for item in page["items"]:
                    marked = find(item["text"] or "", mark)
                    if marked is not None:
                        found[marked[1]] = found.get(marked[1], 0) + 1
                if len(page["items"]) < PAGE:
                    return
                after = page["items"][-1]["seq"]

        cursor: str | None = None
        while True:
            wanted = {"channel": channel, "limit": PAGE, **({"cursor": cursor} if cursor else {})}
            page = await _get(http, "/v1/conversations", wanted)
            await asyncio.gather(*(read(item["id"]) for item in page["items"]))
            cursor = page["next_cursor"]
            if cursor is None:
                return found


async def _get(http: httpx.AsyncClient, path: str, query: dict[str, Any]) -> Any:
    answer = await http.get(path, params=query)
    answer.raise_for_status()
    return json.loads(answer.content)


async def server_cpu_seconds(url: str) -> float | None:
    """CPU time of all processes of the hub together, from its metrics."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        text = (await http.get(f"{url}/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("hub_process_cpu_seconds{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines) if lines else None
