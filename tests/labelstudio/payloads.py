"""Captured requests, and ways to change them."""

import json
from pathlib import Path

from tam_backend.labelstudio.config import parse_label_config
from tam_backend.labelstudio.requests import parse_asks

PAYLOADS = Path(__file__).parents[1] / "data" / "payloads"


def request_body(name: str) -> dict:
    return json.loads((PAYLOADS / f"{name}.json").read_text())["body"]


def asks_of(body: dict, frames: int = 20):
    config = parse_label_config(body["label_config"])
    return parse_asks(body["tasks"][0], body["params"]["context"], config, frames)


def in_draft(body: dict) -> list[dict]:
    """The regions of a request's draft."""
    return body["tasks"][0]["drafts"][0]["result"]


def edit(path: str, value: object):
    """A change to the first region of a request's context, e.g. edit("value.x", 120)."""

    def apply(body: dict) -> None:
        target = body["params"]["context"]["result"][0]
        *parents, last = path.split(".")
        for name in parents:
            target = target[name]
        if value is None:
            target.pop(last)
        else:
            target[last] = value

    return apply
