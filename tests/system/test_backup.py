"""Backup of a hub that serves, and a move to another home, seen from outside."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.hub_process import HubProcess, client


def command(*argv: str) -> str:
    done = subprocess.run([sys.executable, "-m", "api.cli", *argv], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


async def write(http: httpx.AsyncClient, name: str, stop: asyncio.Event) -> int:
    """One customer who writes until told to stop. Returns how often."""
    count = 0
    while not stop.is_set() or count < 3:
        count += 1
        item = {"external_id": f"{name}-{count}", "from": name, "name": name, "text": f"{name} {count}"}
        assert (await http.post("/v1/channels/demo-api/inbound", json=item)).status_code == 201
    return count


async def lists(hub: HubProcess) -> dict[str, Any]:
    async with client(hub) as http:
        found = {path: (await http.get(path)).json() for path in ("/v1/conversations", "/v1/customers", "/v1/agents")}
        for conversation in found["/v1/conversations"]["items"]:
            path = f"/v1/conversations/{conversation['id']}/messages?limit=200"
            found[path] = (await http.get(path)).json()
    # When a customer was last seen is in their row as of the last change of the row itself; a rebuilt row is newer.
    for customer in found["/v1/customers"]["items"]:
        del customer["updated_at"], customer["last_seen_at"]
    found["/v1/customers"]["items"].sort(key=lambda customer: customer["id"])
    return {path: page["items"] for path, page in found.items()}


@pytest.mark.timeout(180)
async def test_a_backup_under_traffic_restores_and_a_moved_store_serves_the_same(tmp_path: Path) -> None:
    old, new, archive = tmp_path / "old", tmp_path / "new", str(tmp_path / "a.hub")
    hub = HubProcess(old).start()
    try:
        async with client(hub) as http:
            stop = asyncio.Event()
            writers = [asyncio.create_task(write(http, f"c{n}", stop)) for n in range(4)]
            await asyncio.to_thread(command, "backup", "--data-dir", str(old), "--to", archive)
            stop.set()
            counts = await asyncio.gather(*writers)
        before = await lists(hub)
        assert sum(len(page) for path, page in before.items() if "/messages" in path) == sum(counts)
    finally:
        hub.stop()
    for folder in (new, tmp_path / "restored"):
        folder.mkdir()
        (folder / "secret.key").write_bytes((old / "secret.key").read_bytes())
    command("restore", "--from", archive, "--to", str(tmp_path / "restored"), "--without-lists")
    command("import", "--from", str(old), "--data-dir", str(new))
    command("verify", str(old), str(new))
    hub = HubProcess(new).start()
    try:
        assert await lists(hub) == before
        conversation = before["/v1/conversations"][0]
        shown = command("replay", conversation["id"], "--data-dir", str(new))
        assert f"({conversation['customer']['id']})" in shown
        async with client(hub) as http:
            item = {"external_id": "after", "from": "c0", "text": "sigo aquí"}
            answer = await http.post("/v1/channels/demo-api/inbound", json=item)
            assert answer.status_code == 201
            item = {"external_id": "c0-1", "from": "c0", "text": "c0 1"}
            assert (await http.post("/v1/channels/demo-api/inbound", json=item)).status_code == 200
    finally:
        hub.stop()
