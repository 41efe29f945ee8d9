"""The rules of the house, each with its reason. `docs/architecture.md` tells them in prose."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("hub", "channels", "actors", "api", "bench")
# A package may import those to its left. Whoever breaks this makes the domain depend on its shells.
MAY_IMPORT = {
    "hub": {"hub"},
    "channels": {"channels", "hub"},
    "actors": {"actors", "channels", "hub"},
    "api": {"api", "actors", "channels", "hub"},
    "bench": {"bench"},
}
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
RAY_SHELLS = {"actors/processes.py", "actors/supervisor.py"}
BANNED_WORDS = ("manager", "utils", "util", "helpers", "helper", "common", "base", "misc")
FILE_MAX_LINES = 520
FUNCTION_MAX_LINES = 60


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_imports_point_left_only(path: Path) -> None:
    package = name(path).partition("/")[0]
    ours = {module.partition(".")[0] for module in imports(path)} & set(PACKAGES)
    assert ours <= MAY_IMPORT[package], f"{name(path)} imports {ours - MAY_IMPORT[package]}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_ray_is_imported_by_the_shells_only(path: Path) -> None:
    """Everything else must run, and be tested, without a cluster."""
    if name(path) not in RAY_SHELLS:
        assert not any(module.partition(".")[0] == "ray" for module in imports(path))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_web_frameworks_stay_at_the_outside(path: Path) -> None:
    if not name(path).startswith("api/"):
        modules = {module.partition(".")[0] for module in imports(path)}
        assert not modules & {"fastapi", "starlette", "uvicorn", "pydantic"}


def test_an_adapter_never_imports_another_adapter() -> None:
    """Or else removing one provider breaks another."""
    folders = [path for path in (ROOT / "channels").iterdir() if (path / "__init__.py").exists()]
    for folder in folders:
        for path in folder.rglob("*.py"):
            for module in imports(path):
                parts = module.split(".")
                other = parts[1] if parts[0] == "channels" and len(parts) > 2 else folder.name
                assert other == folder.name, f"{name(path)} imports {module}"


def test_pure_modules_have_no_clock_no_randomness_and_no_io() -> None:
    """A turn that is a function of its arguments can be replayed, simulated and believed."""
    for path in ("actors/conversation.py", "actors/customer.py", "actors/tenant.py", "hub/model.py", "hub/events.py"):
        impure = {"asyncio", "time", "random", "secrets", "os", "socket", "datetime", "uuid"}
        assert not {module.partition(".")[0] for module in imports(ROOT / path)} & impure, path
    for path in (ROOT / "channels").glob("*/*bound.py"):
        assert not imports(path) & {"asyncio", "time", "random", "httpx", "socket"}, name(path)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_names_say_something(path: Path) -> None:
    """`utils` and `manager` are where structure goes to die; *actor* alone means a virtual actor."""
    parts = [*path.relative_to(ROOT).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            parts.append(node.name)
    for part in parts:
        words = re.findall(r"[A-Z]?[a-z]+", part)
        banned = {word.lower() for word in words} & set(BANNED_WORDS)
        assert not banned, f"{name(path)}: {part}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_files_and_functions_stay_small(path: Path) -> None:
    """When one grows, a noun is missing."""
    text = path.read_text()
    assert text.count("\n") <= FILE_MAX_LINES, f"{name(path)} has {text.count(chr(10))} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= FUNCTION_MAX_LINES, f"{name(path)}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), name(path)


def test_numbers_that_bound_something_carry_their_unit() -> None:
    """`TIMEOUT = 5` does not say five of what."""
    loose = re.compile(r"^(?:[A-Z_]*(?:TIMEOUT|DELAY|BACKOFF|INTERVAL)[A-Z_]*) *=", re.M)
    unit = re.compile(r"_(S|MS|US)\b")
    for path in SOURCES:
        for line in loose.findall(path.read_text()):
            assert unit.search(line.split("=")[0]), f"{name(path)}: {line}"


def test_no_registry_host_and_no_machine_path_is_committed() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    hosts = re.compile("|".join(("files.python" + "hosted", "pypi" + r"\.org", "registry.npm" + "js", "/wo" + "rk/")))
    for file in files:
        path = ROOT / file
        if path.suffix not in (".db", ".png", ".ico", ".woff2") and path.is_file():
            found = hosts.search(path.read_text(errors="replace"))
            assert not found, f"{file} names {found and found[0]}"


def test_every_word_of_the_glossary_is_used() -> None:
    """The glossary is the code's dictionary; a word nobody uses is a word nobody means."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| \*\*([a-z /]+)\*\* \|", text, re.M)
    assert len(rows) > 25
    code = "\n".join(path.read_text().lower() for path in SOURCES)
    for row in rows:
        for word in row.split(" / "):
            assert word in code, word
