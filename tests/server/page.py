"""What an annotator's page sends and keeps, as far as it matters to the server."""

from __future__ import annotations

import itertools
import threading
import time
import urllib.error
from collections.abc import Callable
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any

import numpy as np

from tam_backend.masks import encode_brush_rle
from tests.fakes import FakeLabelStudio

Json = dict[str, Any]

#: What a page sees of a server that is killed, or not there.
GONE = (urllib.error.URLError, ConnectionError, HTTPException, TimeoutError)


_numbers = itertools.count(7001)
_saving = threading.Lock()


class Page:
    """One person at one task, with one label.

    captured: the body of a request as Label Studio sends it, whose fields are kept where this page says nothing else.
    post: sends a request's body to /predict and returns the answer's, or raises one of GONE. ``shown`` has the regions
    on the page by id, ``answered`` the ids of the points that an answer has reached.
    """

    def __init__(
        self,
        label_studio: FakeLabelStudio,
        user: str,
        task: int,
        label: str,
        size: tuple[int, int],
        config: str,
        post: Callable[[Json], Json],
        captured: Json | None = None,
    ) -> None:
        self._captured = captured or {"tasks": [{}], "params": {}}
        self.user, self.task, self.label = user, task, label
        self._label_studio = label_studio
        self._size = size
        self._config = config
        self._post = post
        self.shown: dict[str, Json] = {}
        self.answered: frozenset[str] = frozenset()
        self.busy = 0
        self._draft: Json = {"id": next(_numbers), "user": user, "task": task, "result": []}

    @property
    def points(self) -> list[Json]:
        return [r for r in self.shown.values() if r["type"] == "keypointlabels"]

    @property
    def masks(self) -> dict[int, Json]:
        """item_index -> mask."""
        return {r["item_index"]: r for r in self.shown.values() if r["type"] == "brushlabels"}

    def click(self, frame: int, x: float, y: float, *, positive: bool = True) -> Json:
        """A click at x and y, percent of the picture: add the point, save, ask, and take the answer over."""
        self.shown |= {p["id"]: p for p in [self._point(frame, x, y, positive=positive)]}
        return self.ask()

    def draw(self, frame: int, mask: np.ndarray) -> None:
        """Draw a mask over what is on a frame. mask: HxW bool."""
        old = self.masks.get(frame)
        region = {
            "id": old["id"] if old else f"{self.user}-drawn-{frame}", "from_name": "mask", "to_name": "image",
            "type": "brushlabels", "origin": "prediction-changed" if old else "manual",
            **self._place(frame),
            "value": {"format": "rle", "rle": encode_brush_rle(mask), "brushlabels": [self.label]},
        }  # fmt: skip
        self.shown[region["id"]] = region
        self.save()

    def save(self) -> None:
        """The page saves its draft."""
        self._draft |= {"result": list(self.shown.values()), "updated_at": datetime.now(UTC).isoformat()}
        with _saving:
            self._store()

    def _store(self) -> None:
        others = [d for d in self._label_studio.drafts if d["id"] != self._draft["id"]]
        self._label_studio.drafts = [*others, dict(self._draft)]

    def ask(self) -> Json:
        """Ask for what is due to the points on the page; again, until there is an answer."""
        self.save()
        task = self._label_studio.tasks[self.task]
        work = {"drafts": [dict(self._draft)], "annotations": [], "predictions": []}
        body = self._captured | {
            "tasks": [self._captured["tasks"][0] | task | work], "project": "1.2", "label_config": self._config,
            "params": self._captured["params"] | {"context": {"result": self.points}},
        }  # fmt: skip
        while True:
            try:
                [answer] = self._post(body)["results"]
                break
            except GONE:
                time.sleep(0.1)
        self.take(answer)
        return answer

    def take(self, answer: Json) -> None:
        """What the page does with an answer: masks by their ids; prompts that still wait and are not in it are lost."""
        here = {r["id"] for r in answer["result"]}
        lost = [p["id"] for p in self.points if "is_positive" in p and p["id"] not in here]
        assert not lost, f"the answer to {self.user} lost the points {lost}"
        self.busy += "busy" in answer
        self.shown |= {r["id"]: r for r in answer["result"]}
        self.answered = frozenset(p["id"] for p in self.points)
        self.save()

    def _place(self, frame: int) -> Json:
        width, height = self._size
        return {"item_index": frame, "original_width": width, "original_height": height, "image_rotation": 0}

    def _point(self, frame: int, x: float, y: float, *, positive: bool) -> Json:
        labels = [self.label]
        return {
            "id": f"{self.user}-{self.task}-{len(self.points)}", "from_name": "point", "to_name": "image",
            "type": "keypointlabels", "origin": "manual", **self._place(frame), "is_positive": positive,
            "value": {"x": x, "y": y, "width": 0.3, "keypointlabels": labels, "labels": labels},
        }  # fmt: skip
