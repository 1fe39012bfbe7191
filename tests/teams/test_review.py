"""``tam review``: its figures, its page, and what goes wrong."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tam_backend.labelstudio.config import parse_label_config
from tam_backend.review.figures import TrackFigures, disagreement, mask_figures
from tam_backend.review.project import review_task
from tests.teams.masks import CONFIG, HEIGHT, WIDTH, annotation, blob, clip, region
from tests.teams.standin import StandIn


def point(label: str, index: int) -> dict:
    value = {"x": 10.0, "y": 10.0, "width": 0.3, "keypointlabels": [label]}
    return {
        "id": f"{label}-{index}", "from_name": "point", "to_name": "image", "type": "keypointlabels",
        "item_index": index, "original_width": WIDTH, "original_height": HEIGHT, "value": value,
        "meta": {"object": label, "is_positive": True},
    }  # fmt: skip


@pytest.fixture
def project(studio: StandIn) -> dict:
    """A clip of 20 frames with a poor stretch and one fix; one that two people annotated; one with nothing."""
    made = studio.add_project("Crossing <b>", CONFIG, task_number=3)
    regions = [region("Person 1", i, blob(i), quality=0.4 if 8 <= i < 14 else 0.9) for i in range(20) if i != 16]
    regions[5] = region("Person 1", 5, blob(6), by_hand=True)
    predicted = [region("Person 1", i, blob(i)) for i in range(20)]
    clip(
        studio, 1, 0, 20, total_predictions=1, predictions=[{"id": 90, "result": predicted}],
        annotations=[annotation(11, [*regions, point("Person 1", 0)], lead_time=120.0, completed_by=1)],
    )  # fmt: skip
    ours = [region("Ball", i, blob(20)) for i in range(4)]
    theirs = [region("Ball", i, blob(40 if i == 2 else 20)) for i in range(4)]
    both = [annotation(12, ours, completed_by=1), annotation(13, theirs, "2026-01-02", completed_by=2)]
    clip(studio, 1, 20, 4, annotations=both)
    clip(studio, 1, 24, 4)
    return made


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture
def page(ask, project, tmp_path) -> _Page:
    result = ask("review", 1, "--out", tmp_path / "report.html")
    assert result.code == 0, result.err
    assert "3 tasks, 6 masks need a look" in result.out
    return _Page((tmp_path / "report.html").read_text())


def test_the_page_stands_alone(page, tmp_path):
    text = (tmp_path / "report.html").read_text()
    assert "<script" not in text
    loads = [a for tag, a in page.tags if tag in ("link", "img", "script", "iframe", "source") or "src" in a]
    assert loads == []
    assert "url(" not in text
    assert "@import" not in text
    assert not list(tmp_path.glob(".*")), "nothing is left beside it"


def test_names_are_text_not_markup(page):
    assert "Crossing <b>" in page.text
    assert not any(tag == "b" for tag, _ in page.tags)


def test_the_frame_to_fix_next_comes_with_a_link_that_opens_its_task(page, studio):
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    assert links[0] == f"{studio.url}/projects/1/data?task=1"
    row = re.search(r"1: street, 0 to 19 Person 1 (\d+) (\d+) ([\d.]+) 6 ", page.text)
    assert row is not None, page.text
    frame, number, quality = int(row[1]), int(row[2]), float(row[3])
    assert 8 <= frame < 14
    assert number == frame + 1
    assert quality == 0.4


def test_it_says_how_much_people_changed_and_what_it_cost(page):
    assert "clicks and boxes 1 0.5 an object" in page.text
    assert "minutes 2.0 2.0 an object" in page.text
    # One mask of 8 x 8 pixels was moved by one: IoU 56 / 72.
    assert "1, by 22 %" in page.text


def test_it_says_where_annotators_disagree(page):
    assert "annotation 12 by user 1, annotation 13 by user 2 0.750 frame 22 (page 3), Ball: 0.00" in page.text


def test_without_a_backend_the_outcomes_are_counted_from_what_there_is(page):
    assert "Counted from the annotations and predictions that there are now" in page.text
    # 18 accepted and 1 fixed of task 1, and the one that is missing there; 8 accepted of the two annotations of task 2.
    assert "fake 26 1 1 0 93 / 4 / 4 %" in page.text


def test_tasks_without_masks_are_named(page):
    assert "3: street, 24 to 27 : nothing was submitted or predicted yet" in page.text


# ---- figures


def track(masks: dict[int, np.ndarray], count: int = 10) -> TrackFigures:
    shown = {f: mask_figures(m, 0.9, False) for f, m in masks.items()}
    return TrackFigures("Ball", range(count), shown)


def test_gaps_are_frames_without_a_mask_between_others():
    assert track({f: blob(5) for f in (2, 3, 6, 8)}).gaps() == [4, 5, 7]
    assert track({}).gaps() == []


def test_tiny_masks_are_far_below_the_usual_area():
    masks = {f: blob(5, size=20) for f in range(6)} | {7: blob(5, size=2), 8: blob(5, size=8)}
    assert track(masks).tiny() == [7]


def test_jumps_are_changes_that_moving_objects_do_not_make():
    masks = {f: blob(10 + 2 * f) for f in range(6)}
    assert track(masks).jumps() == []
    jumps = track(masks | {3: blob(40), 5: blob(20, size=16)}).jumps()
    assert [(j.frame, j.text) for j in jumps] == [(3, "moved 26 px"), (4, "moved 22 px"), (5, "area x 4")]


def test_equal_annotations_agree_and_missing_masks_count_as_disagreement():
    one, none = {"Ball": blob(5)}, {}
    same = disagreement("a", "b", range(3), lambda i: one, lambda i: one, ["Ball"])
    assert (same.score, same.worst) == (1.0, (0, "Ball", 1.0))
    half = disagreement("a", "b", range(2), lambda i: one, lambda i: none if i else one, ["Ball"])
    assert (half.score, half.worst) == (0.5, (1, "Ball", 0.0))
    assert disagreement("a", "b", range(2), lambda i: none, lambda i: none, ["Ball"]).score == 1.0


def test_clicked_frames_count_as_decided(studio):
    task = clip(studio, 1, 0, 3)
    work = annotation(1, [*(region("Ball", i, blob(5), quality=0.3) for i in range(3)), point("Ball", 1)])
    figures = review_task(task, [work], [], parse_label_config(CONFIG))
    [ball] = figures.tracks
    assert ball.decided == {1}
    assert ball.review().look == 2


def test_a_mask_that_cannot_be_read_leaves_its_task_out(studio):
    task = clip(studio, 1, 0, 3)
    broken = region("Ball", 7, blob(5))
    figures = review_task(task, [annotation(1, [broken])], [], parse_label_config(CONFIG))
    assert "item_index is 7; this task has frames 0 to 2" in figures.problem


# ---- what the backend has counted


@pytest.fixture
def backend(studio: StandIn) -> Iterator[tuple[str, list[str | None]]]:
    """(address, Authorization of each request) of a backend that has counted outcomes."""
    asked: list[str | None] = []
    mine = {"label_studio": studio.url, "project": 1, "version": "embedded 4"}
    other = {"label_studio": "http://elsewhere:8080", "project": 1, "version": "embedded 3"}
    numbers = {"accepted": 70, "fixed": 20, "rejected": 10, "drawn": 0, "annotations": 5}
    body = json.dumps({"status": "UP", "outcomes": [mine | numbers, other | numbers]}).encode()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            asked.append(self.headers["Authorization"])
            self.send_response(200 if self.path == "/status.json" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_connected_backend_is_asked_what_became_of_its_masks(ask, studio, project, backend, tmp_path):
    url, asked = backend
    studio.backends[1] = {"id": 1, "project": 1, "url": url}
    assert ask("review", 1, "--out", tmp_path / "report.html").code == 0
    text = _Page((tmp_path / "report.html").read_text()).text
    assert "Counted by the backend whenever somebody submitted." in text
    assert "embedded 4 70 20 10 0 70 / 20 / 10 %" in text
    assert "embedded 3" not in text, "that is another Label Studio"
    assert asked == [None]


def test_a_password_goes_only_to_a_backend_that_was_named(ask, studio, project, backend, tmp_path, monkeypatch):
    url, asked = backend
    monkeypatch.setenv("TAM_BASIC_AUTH_USER", "lead")
    monkeypatch.setenv("TAM_BASIC_AUTH_PASSWORD", "a-long-password")
    studio.backends[1] = {"id": 1, "project": 1, "url": url}
    assert ask("review", 1, "--out", tmp_path / "report.html").code == 0
    assert ask("review", 1, "--out", tmp_path / "report.html", "--backend", f"{url}/").code == 0
    assert asked == [None, "Basic bGVhZDphLWxvbmctcGFzc3dvcmQ="]


# ---- what goes wrong


def test_a_backend_that_does_not_answer_is_said_and_the_report_is_made(ask, studio, project, tmp_path):
    studio.backends[1] = {"id": 1, "project": 1, "url": "http://127.0.0.1:9/secret-path-of-it"}
    result = ask("review", 1, "--out", tmp_path / "report.html")
    assert result.code == 0
    assert "note: not asked what became of its masks: http://127.0.0.1:9 does not answer" in result.err
    assert (tmp_path / "report.html").exists()


def test_a_dry_run_writes_nothing(ask, project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = ask("review", "Crossing <b>", "--dry-run")
    assert result.code == 0
    assert "3 tasks, 2 submitted" in result.out
    assert not list(tmp_path.iterdir())


def test_a_server_that_vanishes_is_met_again_where_it_left(ask, studio, tmp_path):
    studio.add_project("P", CONFIG)
    for i in range(10):
        clip(studio, 1, i, 1, annotations=[annotation(i + 1, [region("Ball", 0, blob(i))])])
    studio.answers = 8
    out = tmp_path / "r.html"
    result = ask("review", 1, "--out", out)
    assert result.code == 1
    assert "the same command goes on from here" in result.err
    assert not out.exists()
    studio.answers = None
    assert ask("review", 1, "--out", out).code == 0
    assert len(studio.asked("GET", r"/annotations/$")) == 10, "nothing is fetched twice"


def test_an_older_report_stays_until_the_new_one_is_there(ask, studio, project, tmp_path: Path):
    out = tmp_path / "r.html"
    ask("review", 1, "--out", out)
    before = out.read_text()
    studio.answers = 3
    assert ask("review", 1, "--out", out).code == 1
    assert out.read_text() == before
