from __future__ import annotations

from collections.abc import Iterator

import pytest

from tam_backend.labelstudio.connections import Connection
from tam_backend.labelstudio.projects import Patience, ProjectClient
from tests.cli.conftest import Result, Tam, folder, tam, video  # noqa: F401 (fixtures)
from tests.teams.standin import LEGACY, StandIn


@pytest.fixture
def studio() -> Iterator[StandIn]:
    """Stands for Label Studio."""
    standin = StandIn()
    yield standin
    standin.close()


@pytest.fixture
def client(studio: StandIn) -> ProjectClient:
    """Waits two seconds for it, in a moment's time."""
    return ProjectClient(Connection(studio.url, LEGACY), Patience(2.0, sleep=lambda _: None))


@pytest.fixture
def ask(tam: Tam, studio: StandIn) -> Tam:  # noqa: F811
    """Run ``tam`` with the stand-in's address and token."""

    def run(*arguments: object) -> Result:
        wait = () if "--wait" in arguments else ("--wait", "1")
        return tam(*arguments, "--url", studio.url, "--token", LEGACY, *wait)

    return run
