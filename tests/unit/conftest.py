"""Unit tests run without Ray: whatever they need of it has been put in the wrong place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import pytest


class _RayIsForbidden(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname.partition(".")[0] == "ray":
            raise ImportError("a unit test imported Ray; drive the plain object inside the shell instead")


@contextmanager
def _without_ray() -> Iterator[None]:
    """Not even one that another suite of this session has already imported can be had."""
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "ray"}
    finder = _RayIsForbidden()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        sys.modules.update(hidden)


def _is_unit(path: Path) -> bool:
    """pytest asks the hooks below for tests of other folders, too."""
    return Path(__file__).parent in path.parents


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    with _without_ray() if _is_unit(collector.path) else nullcontext():
        return (yield)  # type: ignore[return-value]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    with _without_ray() if _is_unit(item.path) else nullcontext():
        return (yield)  # type: ignore[return-value]
