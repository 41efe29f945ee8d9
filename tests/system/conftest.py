from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hub_process import HubProcess, running_hub


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """One hub for all tests that do not break it; each uses customers of its own."""
    with running_hub(tmp_path_factory.mktemp("hub") / "data") as hub:
        yield hub
