"""/status: the page for people and the JSON for machines."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from dataclasses import asdict
from html.parser import HTMLParser

import pytest

from model import TrackAnything
from tam_backend.labelstudio.service import Service
from tam_backend.server.app import create_app
from tam_backend.server.status import SHOWN_ENDED, duration
from tam_backend.sessions.progress import JobState
from tam_backend.settings import Settings
from tests.fake_progress import FakeProgress, job
from tests.fakes import fake_engine

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"}


class Page(HTMLParser):
    """What a reader sees: words without tags, links, progress bars, and what is in elements by id."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.raw: dict[str, str] = {}
        self._open = ""
        self.feed(html)
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "span":  # the others begin on a line of their own, or are apart
            self.words.append(" ")
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style"):
            self.raw[self._open] = self.raw.get(self._open, "") + data
        else:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


class Site:
    """The application and its fake progress."""

    def __init__(self, service: Service, progress: FakeProgress | None) -> None:
        self.service = service
        self.progress = progress
        self.client = create_app(service.settings, TrackAnything, service, progress).test_client()

    def page(self) -> Page:
        answer = self.client.get("/status", headers=BROWSER)
        assert answer.status_code == 200
        assert answer.mimetype == "text/html"
        return Page(answer.text)


@pytest.fixture
def service(tmp_path):
    service = Service(Settings(data_dir=tmp_path / "data"), fake_engine())
    yield service
    service.close()


@pytest.fixture
def site(service):
    return Site(service, FakeProgress())


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (BROWSER["Accept"], "text/html"), ("text/html", "text/html"), ("*/*", "application/json"),
        (None, "application/json"), ("application/json", "application/json"),
        ("application/json, text/html;q=0.5", "application/json"),
        ("nonsense", "application/json"),
    ],
)  # fmt: skip
def test_browsers_get_a_page_and_programs_get_json(site, accept, kind):
    answer = site.client.get("/status", headers={"Accept": accept} if accept else {})
    assert answer.mimetype == kind
    assert answer.headers["Vary"] == "Accept"
    assert answer.headers["Cache-Control"] == "no-store"


def test_json_has_the_facts_and_every_field_of_every_job(site):
    jobs = [job(i, state, seconds_left=7.5, error="a\nb") for i, state in enumerate(JobState)]
    site.progress.jobs = jobs
    for path, headers in (("/status.json", BROWSER), ("/status", {})):
        answer = site.client.get(path, headers=headers).json
        assert answer["jobs"] == json.loads(json.dumps([asdict(j) for j in jobs]))
        assert {j["state"] for j in answer["jobs"]} == {
            "waiting", "running", "delivering", "done", "failed", "stopped",
        }  # fmt: skip
        assert set(answer) == set(site.service.status()) | {"jobs"}
        assert answer["engine"] == "fake"


def test_json_stays_json_when_the_time_left_is_no_number(site):
    site.progress.jobs = [job(1, seconds_left=float("inf")), job(2, seconds_left=float("nan"))]
    text = site.client.get("/status.json").text
    assert [j["seconds_left"] for j in json.loads(text, parse_constant=pytest.fail)["jobs"]] == [None, None]
    assert site.page().text.count("time left not known yet") == 2


def test_without_background_work_there_are_no_jobs(service):
    site = Site(service, None)
    assert site.client.get("/status.json").json["jobs"] == []
    page = site.page()
    assert "0 running, 0 waiting, 0 failed" in page.text
    assert "Nothing is being tracked now." in page.text
    assert page.all("progress") == []


def test_a_running_job_in_words(site):
    site.progress.jobs = [job(7, frames_done=25, seconds_left=130.0, updated=time.time() - 42)]
    page = site.page()
    assert "1 running, 0 waiting, 0 failed" in page.text
    assert "Object 1 task 47 of project 3 tracking 25 of 100 frames (25 %) about 2 minutes left" in page.text
    assert "last change 42 seconds ago" in page.text
    assert "Nothing is being tracked" not in page.text
    [bar] = page.all("progress")
    assert (bar["value"], bar["max"]) == ("25", "100")
    assert bar["aria-label"] == "Frames of Object 1, task 47 of project 3, that are finished"
    assert "http://studio.test:8080/projects/3/data?task=47" in [a["href"] for a in page.all("a")]


def test_every_state_has_words_and_its_place(site):
    site.progress.jobs = [job(i, state, error="Disk full." * (state == "failed")) for i, state in enumerate(JobState)]
    text = site.page().text
    assert "1 running, 1 waiting, 1 to be saved, 1 failed" in text
    under_way, rest = text.split("Under way")[1].split(" Failed ")
    failed, folded = rest.split("2 finished or stopped")
    for part, words in (
        (under_way, ["waiting for its turn", "tracking", "the masks are saved when nobody works on the task"]),
        (failed, ["failed", "Disk full.", "click on the object again"]),
        (folded, ["done", "stopped"]),
    ):
        for word in words:
            assert word in part
    assert "click on the object again" not in under_way + folded


def test_an_error_of_a_job_that_goes_on_says_so(site):
    site.progress.jobs = [job(1, JobState.DELIVERING, error="Label Studio does not answer.")]
    assert "Label Studio does not answer. Nothing to do: the backend tries again by itself." in site.page().text


def test_what_people_wrote_is_shown_and_not_run(site):
    label = """<img src=x onerror="alert('&amp;')"> {{ 7 * 7 }} größe 日本"""
    error = "</script><script>alert(2)</script>\n'\"" + "long " * 500
    site.progress.jobs = [job(1, JobState.FAILED, label=label, error=error)]
    page = site.page()
    assert " ".join(label.split()) in page.text
    assert " ".join(error.split()) in page.text
    assert page.all("img") == []
    assert len(page.all("script")) == 1


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)//", "data:text/html,x", "//host", "", "http://", "http://[", "x"]
)
def test_only_addresses_of_the_web_become_links(site, address):
    site.progress.jobs = [job(1, label_studio=address)]
    page = site.page()
    assert [a["href"] for a in page.all("a")] == ["status.json", "metrics"]
    assert "task 41 of project 3" in page.text


def test_a_strict_policy_allows_our_style_and_script_and_nothing_else(site):
    site.progress.jobs = [job(1)]
    answer = site.client.get("/status", headers=BROWSER)
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    for name in ("base-uri", "form-action", "frame-ancestors"):
        assert policy[name] == "'none'"
    page = Page(answer.text)
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.raw[tag].encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    for name, attributes in page.tags:
        assert not [a for a in attributes if a == "style" or a.startswith("on")], name
        assert not attributes.get("src")
        assert name != "link" or attributes["href"].startswith("data:")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_html_of_the_web_framework_has_a_policy_too(site):
    answer = site.client.get("//status", headers=BROWSER)
    assert answer.status_code == 308
    assert answer.mimetype == "text/html"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "unsafe" not in answer.headers["Content-Security-Policy"]


def test_it_can_be_read_without_a_script(site):
    html = site.client.get("/status", headers=BROWSER).text
    assert re.search(r'<noscript><meta http-equiv="refresh" content="\d+"></noscript>', html)
    assert re.search(r'<meta name="viewport" content="width=device-width', html)


def test_only_the_summary_is_read_out(site):
    site.progress.jobs = [job(1)]
    assert [a["id"] for _, a in site.page().tags if "aria-live" in a] == ["summary"]


def test_it_asks_often_only_while_something_is_going_on(site):
    [idle] = site.page().all("main")
    site.progress.jobs = [job(1, JobState.DONE)]
    assert site.page().all("main") == [idle]
    site.progress.jobs = [job(1, JobState.WAITING)]
    [busy] = site.page().all("main")
    assert float(busy["data-seconds"]) == 2 < float(idle["data-seconds"])
    site.progress.jobs = []
    site.service._new_tasks._filling["http://studio.test", 5] = None
    page = site.page()
    assert page.all("main") == [busy]
    assert "Uploads getting their frames task 5" in page.text


@pytest.mark.parametrize(
    ("done", "total", "shown"),
    [
        (0, 0, ("0", "1", "0 of 0 frames (0 %)")), (199, 200, ("199", "200", "(99 %)")),
        (120, 100, ("100", "100", "100 of 100 frames (100 %)")), (-1, 5, ("0", "5", "0 of 5 frames (0 %)")),
    ],
)  # fmt: skip
def test_odd_counts_of_frames(site, done, total, shown):
    site.progress.jobs = [job(1, frames_done=done, frames_total=total)]
    page = site.page()
    [bar] = page.all("progress")
    assert (bar["value"], bar["max"]) == shown[:2]
    assert shown[2] in page.text


def test_many_jobs_stay_quick_and_the_ended_ones_few(site):
    """Two hundred of each, with long errors: what a browser has to show stays bounded, and the sums count them all."""
    site.progress.jobs = [
        *(job(i, JobState.WAITING) for i in range(200)),
        *(job(i, JobState.FAILED, error="e" * 300) for i in range(200, 400)),
        *(job(i, JobState.DONE) for i in range(400, 600)),
    ]
    site.page()
    took = []
    for _ in range(3):  # others may use the machine for a moment
        started = time.perf_counter()
        answer = site.client.get("/status", headers=BROWSER)
        took.append(time.perf_counter() - started)
    assert min(took) < 0.5
    page = Page(answer.text)
    assert "0 running, 200 waiting, 200 failed" in page.text
    assert "200 finished or stopped" in page.text
    assert f"{200 - SHOWN_ENDED} more failed before these." in page.text
    assert f"{200 - SHOWN_ENDED} more ended before these." in page.text
    assert len(page.all("progress")) == 200 + 2 * SHOWN_ENDED
    assert len(answer.data) < 300_000
    assert len(site.client.get("/status.json").json["jobs"]) == 600


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 seconds"), (0.4, "0 seconds"), (1, "1 second"), (59.4, "59 seconds"), (59.6, "1 minute"),
        (3569, "59 minutes"), (3571, "1 hour"), (4200, "1 hour 10 minutes"), (7200, "2 hours"),
        (47 * 3600, "47 hours"), (49 * 3600, "2 days 1 hour"), (48 * 3600, "2 days"),
    ],
)  # fmt: skip
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_colours_can_be_read():
    """WCAG 2.2, 1.4.3: text has a contrast of 4.5 to what it stands on, in both colour schemes."""
    from importlib import resources

    css = resources.files("tam_backend.server").joinpath("templates", "status.css").read_text()

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])

    schemes = [dict(re.findall(r"--([\w-]+): (#\w{6});", part)) for part in css.split("@media")[:2]]
    assert schemes[0] != schemes[1]
    for colours in schemes:
        for ink, ground in [
            ("ink", "ground"), ("ink", "card"), ("ink", "bad-ground"), ("soft", "ground"), ("soft", "card"),
            ("link", "ground"), ("link", "card"), ("bad", "card"),
        ]:  # fmt: skip
            bright, dark = sorted((luminance(colours[ink]), luminance(colours[ground])), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


def test_finished_masks_say_which_frame_to_fix(service):
    site = Site(
        service,
        FakeProgress(
            job(1, JobState.DONE, frames_done=100, first=200, look=12, fix_next=231),
            job(2, JobState.DONE, frames_done=100, first=200, look=1, fix_next=200),
            job(3, JobState.DONE, frames_done=100, first=0, look=0, fix_next=None),
            job(4),
        ),
    )
    page = site.page()
    assert "12 frames need a look; fix frame 231 next (page 32)" in page.text
    assert "1 frame needs a look; fix frame 200 next (page 1)" in page.text
    assert page.text.count("no frame needs a look") == 1
    links = [a["href"] for a in page.all("a")]
    assert links.count("http://studio.test:8080/projects/3/data?task=41") == 2, "at the task and at what to fix"
    assert links.count("http://studio.test:8080/projects/3/data?task=44") == 1
    jobs = site.client.get("/status.json").json["jobs"]
    assert [(j["look"], j["fix_next"], j["first"]) for j in jobs[:2]] == [(12, 231, 200), (1, 200, 200)]
