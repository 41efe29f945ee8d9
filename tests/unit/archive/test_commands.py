"""The commands, as an operator gives them, on embedded stores."""

from __future__ import annotations

import asyncio
import fcntl
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from api.cli import main
from hub.clock import rfc3339
from hub.ids import conversation_id
from hub.sealing import Keyring, load_secret
from hub.storage import open_store
from tests.unit.archive import made
from tests.unit.archive.made import PARTITIONS, Writer, customer

CONVERSATION = conversation_id(customer(1, 1), 1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a small store, and nothing of the outside in the environment."""
    for name in ("HUB_STORAGE", "HUB_DATA_DIR", "HUB_SECRET_KEY", "HUB_PARTITIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(made, "KEYRING", Keyring(load_secret(None, tmp_path / "data")))
    write(tmp_path / "data", _first_days)
    return tmp_path / "data"


def write(folder: Path, work: Callable[[Writer], object]) -> None:
    async def run() -> None:
        store = await open_store(f"sqlite://{folder}", partitions=PARTITIONS)
        await work(Writer(store))  # type: ignore[misc]
        await store.close()

    asyncio.run(run())


async def _first_days(writer: Writer) -> None:
    await writer.contact(1, 1)
    await writer.reply(1, 1, 2)
    await writer.contact(2, 2, "otra")
    await writer.store.documents.claim("email", "ana@acme.test", "acme/agt_ana")


async def _one_more(writer: Writer) -> None:
    await writer.contact(3, 3, "más tarde")


def with_secret_of(folder: Path, name: str) -> str:
    """A new data folder that has the installation's secret."""
    other = folder.parent / name
    other.mkdir()
    (other / "secret.key").write_bytes((folder / "secret.key").read_bytes())
    return str(other)


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that a command ends with when it cannot do what it was told."""
    capsys.readouterr()
    assert main([*argv]) in (1, 2)
    err = capsys.readouterr().err.strip()
    assert err.count("\n") == 0 and err.startswith("hub: "), err
    return err


def test_a_backup_restores_into_a_store_that_is_ready(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backup", "--to", "a.hub"]) == 0
    out = capsys.readouterr().out
    assert "7 events" in out and "position  1-4_2-3" in out and "secret.key" in out
    assert (folder / "secret.key").read_text().strip().encode() not in Path("a.hub").read_bytes()
    target = with_secret_of(folder, "new")
    assert main(["restore", "--from", "a.hub", "--to", target]) == 0
    out = capsys.readouterr().out
    assert "1 outbound messages may have left since" in out and "lists were made" in out

    async def look() -> None:
        store = await open_store(f"sqlite://{target}")
        assert await store.views.conversation("acme", CONVERSATION) is not None
        assert await store.views.checkpoint(1) == await store.journal.head(1) == 5
        assert await store.documents.owner("email", "ana@acme.test") == "acme/agt_ana"
        await store.close()

    asyncio.run(look())


def test_an_export_imports_byte_for_byte_and_verify_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--to", "a.hub", "--storage", f"sqlite://{folder}"]) == 0
    one, two = with_secret_of(folder, "one"), with_secret_of(folder, "two")
    assert main(["import", "--from", "a.hub", "--data-dir", one]) == 0
    assert main(["import", "--from", str(folder), "--data-dir", two, "--without-lists"]) == 0
    for other in ("a.hub", one, f"sqlite://{two}"):
        assert main(["verify", str(folder), other]) == 0
    assert "the same: 7 events, 2 keys" in capsys.readouterr().out
    write(Path(two), _one_more)
    assert main(["verify", one, two]) == 1
    assert "partition 3: 0 and 3 events" in capsys.readouterr().out


def test_a_chain_needs_all_its_links_in_order(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backup", "--to", "1.hub"]) == 0
    write(folder, _one_more)
    assert main(["backup", "--to", "2.hub", "--since", "1.hub"]) == 0
    assert main(["backup", "--to", "3.hub", "--since", "2.hub"]) == 0
    assert "3 events" in capsys.readouterr().out
    assert "name that one first" in fails(capsys, "restore", "--from", "2.hub", "--verify")
    assert "continues another archive" in fails(capsys, "restore", "--from", "1.hub", "3.hub", "--verify")
    assert main(["restore", "--from", "1.hub", "2.hub", "3.hub", "--verify"]) == 0
    target = with_secret_of(folder, "new")
    assert main(["import", "--from", str(folder), "--data-dir", target]) == 0
    restored = with_secret_of(folder, "restored")
    assert main(["restore", "--from", "1.hub", "2.hub", "3.hub", "--to", restored, "--without-lists"]) == 0
    assert "only a part" in fails(capsys, "verify", "2.hub", restored)


def test_an_earlier_moment(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, _one_more)
    assert main(["backup", "--to", "a.hub"]) == 0
    at = with_secret_of(folder, "at")
    assert main(["restore", "--from", "a.hub", "--to", at, "--position", "1-2_2-0"]) == 0
    out = capsys.readouterr().out
    assert "partition 1 was cut at 3, the end of a turn" in out and "position  1-3_3-3" in out
    until = with_secret_of(folder, "until")
    moment = rfc3339(made.AT + 1_500)
    assert main(["restore", "--from", "a.hub", "--to", until, "--until", moment]) == 0
    assert "position  1-3_3-3" in capsys.readouterr().out  # the later writer's clock began anew
    assert "takes partition-offset pairs" in fails(
        capsys, "restore", "--from", "a.hub", "--to", "x", "--position", "first"
    )
    assert "takes an instant" in fails(capsys, "restore", "--from", "a.hub", "--to", "x", "--until", "monday")
    assert "ends at 4 in this archive" in fails(capsys, "restore", "--from", "a.hub", "--to", "x", "--position", "1-9")


def test_what_would_do_harm_is_refused_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backup", "--to", "a.hub"]) == 0
    assert "is not empty" in fails(capsys, "restore", "--from", "a.hub", "--to", str(folder))
    assert "no secret.key" in fails(capsys, "restore", "--from", "a.hub", "--to", "elsewhere")
    load_secret(None, folder.parent / "stranger")
    assert "another installation's secret" in fails(capsys, "restore", "--from", "a.hub", "--to", "stranger")
    assert not (folder.parent / "stranger" / "hub.db").exists() and not (folder.parent / "elsewhere").exists()
    assert "there is no store" in fails(capsys, "backup", "--to", "b.hub", "--data-dir", "stranger")
    assert "exists" in fails(capsys, "backup", "--to", "a.hub")
    assert "not an archive" in fails(capsys, "restore", "--from", str(folder / "hub.db"), "--verify")
    assert "sealed with another secret" in fails(capsys, "import", "--from", str(folder), "--data-dir", "stranger")
    with open(folder / "hub.lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "a hub is running" in fails(capsys, "restore", "--from", "a.hub", "--to", str(folder), "--resume")
    url = "oracle://ana:hunter2@127.0.0.1:1/none"
    assert "hunter2" not in fails(capsys, "backup", "--to", "c.hub", "--storage", url)


def test_damage_is_told_before_anything_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backup", "--to", "a.hub"]) == 0
    whole = Path("a.hub").read_bytes()
    target = with_secret_of(folder, "new")
    for broken in (whole[:-30], whole[:200] + b"?" + whole[201:]):
        Path("a.hub").write_bytes(broken)
        assert "block " in fails(capsys, "restore", "--from", "a.hub", "--to", target)
        assert "block " in fails(capsys, "restore", "--from", "a.hub", "--verify")
        assert not (Path(target) / "hub.db").exists()


def test_replay_shows_a_conversation_as_it_was(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", CONVERSATION]) == 0
    page = capsys.readouterr().out
    assert "Hola" in page and "Buenas  (queued)" in page and "Customer 1" in page
    assert main(["replay", CONVERSATION, "--at", rfc3339(made.AT + 1_000), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["position"] == "1-3" and [m["text"] for m in shown["conversations"][0]["messages"]] == ["Hola"]
    assert main(["replay", customer(2, 2)]) == 0
    assert "otra" in capsys.readouterr().out
    assert "is not an id" in fails(capsys, "replay", "juan")
    assert "there is no cnv_" in fails(capsys, "replay", CONVERSATION, "--at", rfc3339(made.AT))
    assert "takes an instant" in fails(capsys, "replay", CONVERSATION, "--at", "ayer")


def test_a_terminal_obeys_nothing_that_a_customer_wrote(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def hostile(writer: Writer) -> None:
        await writer.contact(0, 4, "\x1b]0;owned\x07\nfake line\u202e")

    write(folder, hostile)
    assert main(["replay", customer(0, 4)]) == 0
    page = capsys.readouterr().out
    assert "\x1b" not in page and "\x07" not in page and "\u202e" not in page and "\nfake" not in page
