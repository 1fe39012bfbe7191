"""A small part of what ``python scripts/dev.py fuzz`` does, and that it would see what it looks for."""

from __future__ import annotations

import logging
import re

import pytest

from tests.hostile.fuzzing import GIVEN_TOKEN, SECRETS, USER, Broken, Fuzzer, Target, target


@pytest.fixture(scope="module")
def aim():
    with target() as made:
        yield made


def test_random_requests(aim: Target):
    fuzzer = Fuzzer(aim, 45, start=20)
    fuzzer.run()
    assert fuzzer.counts.total() >= 135
    kinds = {kind for kind, _ in fuzzer.counts}
    assert kinds == {"described", "captured", "anything"}
    statuses = {status for _, status in fuzzer.counts}
    assert {200, 400, 403, 404, 405} <= statuses, "requests that pass, and ones that do not"


@pytest.mark.parametrize("word", [*SECRETS.values(), GIVEN_TOKEN, "Traceback (most recent call last)", "{root}/data"])
def test_the_fuzzer_sees_what_must_not_be_told(aim: Target, word: str):
    word = word.format(root=aim.root)
    with pytest.raises(Broken, match="an answer tells"):
        aim.check(400, f"error: {word}")
    logging.getLogger("tam_backend.test").info("seen: %s", word)
    with pytest.raises(Broken, match="the log tells"):
        aim.check(200, "")
    del aim.log[:]


@pytest.mark.parametrize("status", [500, 501, 503])
def test_the_fuzzer_sees_faults(aim: Target, status: int):
    with pytest.raises(Broken):
        aim.check(status, "")


def test_every_route_is_described_and_nothing_else(aim: Target):
    described = aim.session.get(f"{aim.url}/openapi.json", auth=(USER, SECRETS["TAM_BASIC_AUTH_PASSWORD"])).json()
    paths = {(path, method.upper()) for path, o in described["paths"].items() for method in o if method != "servers"}
    rules = list(aim.app.url_map.iter_rules())
    routes = {
        (re.sub(r"<(?:int:)?(\w+)>", r"{\1}", rule.rule), method)
        for rule in rules for method in rule.methods - {"HEAD", "OPTIONS"}
    }  # fmt: skip
    assert paths == routes


def test_the_description_needs_the_credentials(aim: Target):
    assert aim.session.get(f"{aim.url}/openapi.json").status_code == 401
    assert aim.session.get(f"{aim.origin}/openapi.json").status_code == 404
