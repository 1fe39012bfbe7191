"""What all commands that talk to Label Studio share: their options, how they connect, and how they say what failed."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator

from tam_backend.errors import BadInput, LabelStudioError
from tam_backend.labelstudio.connections import Connection
from tam_backend.labelstudio.projects import Patience, ProjectClient, Vanished
from tam_backend.settings import Settings

#: Ends the help of every command that takes these options.
EPILOG = """\
where Label Studio is:
  --url and --token, or the variables TAM_LABEL_STUDIO_URL and TAM_LABEL_STUDIO_TOKEN, which keep the token out of the
  shell's history. The token is a personal access token (Account & Settings > Personal Access Token) or a legacy one.

Exit codes: 0 done, 1 failed (Label Studio refused, or went away: the same command goes on from there), 2 something
given cannot be used, 130 stopped by Ctrl-C.
"""


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """``--url``, ``--token`` and ``--wait``."""
    group = parser.add_argument_group("Label Studio")
    group.add_argument("--url", metavar="URL", help="its address (default: TAM_LABEL_STUDIO_URL)")
    group.add_argument("--token", metavar="TOKEN", help="token of a person (default: TAM_LABEL_STUDIO_TOKEN)")
    group.add_argument(
        "--wait", type=_seconds, default=30.0, metavar="SECONDS",
        help="how long to wait for Label Studio while it does not answer (default: 30)",
    )  # fmt: skip


def add_project(parser: argparse.ArgumentParser) -> None:
    """The argument PROJECT."""
    parser.add_argument("project", metavar="PROJECT", help="its id, its address, or its title")


def connect(args: argparse.Namespace) -> ProjectClient:
    """A client for the Label Studio that options or environment name, which has taken the token.

    Raises BadInput if there is no address or token, LabelStudioError if Label Studio does not answer or refuses it.
    """
    known = os.environ.get("TAM_LABEL_STUDIO_URL", "").strip()
    url = args.url or known
    if not url:
        raise BadInput("say where Label Studio is: --url http://host:8080, or TAM_LABEL_STUDIO_URL")
    token = args.token
    if not token and url.rstrip("/") == known.rstrip("/"):  # a token goes only to the address it was set for
        token = os.environ.get("TAM_LABEL_STUDIO_TOKEN", "").strip()
    if not token:
        raise BadInput(
            f"say who you are on {url}: --token, or TAM_LABEL_STUDIO_TOKEN with TAM_LABEL_STUDIO_URL (in Label Studio: "
            "Account & Settings > Personal Access Token)"
        )
    settings = Settings.from_env({"TAM_LABEL_STUDIO_URL": url, "TAM_LABEL_STUDIO_TOKEN": token})
    connection = Connection(settings.label_studio_url, settings.label_studio_token)
    client = ProjectClient(connection, Patience(args.wait))
    client.whoami()
    return client


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Around the work of a command that can be run again: says so when Label Studio went away."""
    try:
        yield
    except Vanished as e:
        raise LabelStudioError(f"{e}. What is done stays done: the same command goes on from here") from e


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 3600")
    return value
