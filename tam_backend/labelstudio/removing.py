"""Taking objects out of the videos of tasks: what is asked for, and how it is done with what Label Studio has."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tam_backend.errors import BadInput, LabelStudioError, TamError
from tam_backend.inpainting.base import Filling, Inpainter
from tam_backend.inpainting.engines import load_inpainter
from tam_backend.inpainting.objects import DILATE, MAX_DILATE, ObjectHoles, choose_frames, choose_objects
from tam_backend.inpainting.output import Source, write_result
from tam_backend.labelstudio.accepted import StudioTask
from tam_backend.labelstudio.clips import ClipFiller
from tam_backend.labelstudio.connections import Connection, Connections
from tam_backend.labelstudio.library import VideoLibrary
from tam_backend.labelstudio.projects import Patience, ProjectClient
from tam_backend.labelstudio.prompts import Json
from tam_backend.sessions.removals import Removal
from tam_backend.settings import INPAINT_ENGINES, Settings
from tam_backend.tracking.store import BlobStore


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


#: Field of what is asked for -> what it is, in words, and whether a value is that. All but ``task`` may be left out.
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "task": ("the number of a task", _is_count),
    "objects": ("a list of labels", lambda v: isinstance(v, list) and all(isinstance(o, str) for o in v)),
    "start": ("the number of a frame", _is_count),
    "end": ("the number of a frame", _is_count),
    "dilate": (f"a number of pixels from 0 to {MAX_DILATE}", lambda v: _is_count(v) and v <= MAX_DILATE),
    "engine": (f"one of {', '.join(INPAINT_ENGINES)}", lambda v: v in INPAINT_ENGINES),
    "keep_audio": ("true or false", lambda v: isinstance(v, bool)),
}


class RemovalDesk:
    """Takes requests in, and does them. secret: makes ids that nobody can guess."""

    def __init__(
        self, library: VideoLibrary, clips: ClipFiller, connections: Connections, settings: Settings, secret: bytes
    ) -> None:
        self._library, self._clips, self._connections = library, clips, connections
        self._settings, self._secret = settings, secret
        self._engines: dict[str, Inpainter] = {}

    def accept(self, asked: Json) -> Removal:
        """What a request asks for. The same request about the same annotation is the same removal.

        Raises BadInput for what cannot be done, LabelStudioError if Label Studio cannot be asked.
        """
        for name in asked:
            if name not in _FIELDS:
                raise BadInput(f"{name!r:.80} is no field of a removal; there are {', '.join(_FIELDS)}")
        for name, (what, right) in _FIELDS.items():
            if (value := asked.get(name)) is None:
                if name == "task":
                    raise BadInput("task is missing: the number of the task whose objects are to be taken out")
            elif not right(value):
                raise BadInput(f"{name} must be {what}, not {value!r:.80}")
        connection = self._connection()
        task = StudioTask(ProjectClient(connection, Patience(0.0)), asked["task"])
        unknown = [o for o in asked.get("objects") or [] if o not in task.labels]
        if unknown:
            raise BadInput(f"objects: there is no label {unknown[0]!r:.80}; there are {', '.join(task.labels)}")
        engine = asked.get("engine") or self._settings.inpaint
        full = {k: asked.get(k) for k in _FIELDS} | {"engine": engine}
        full["annotation"] = _state(task)
        of = [connection.url, full, self._engine(engine).version]
        number = hmac.new(self._secret, json.dumps(of, sort_keys=True).encode(), hashlib.sha256).hexdigest()[:32]
        label = ", ".join(full["objects"] or []) or "all objects"
        return Removal(number, full, connection.url, task.project, asked["task"], label)

    @contextlib.contextmanager
    def begin(self, removal: Removal, store: BlobStore, out: Path) -> Iterator[_Work]:
        """See ``sessions.removals.Begin``. Raises TamError."""
        asked = removal.asked
        connection = self._connections.get(removal.label_studio)
        task = StudioTask(ProjectClient(connection), removal.task)
        if _state(task) != asked["annotation"]:
            raise TamError(f"{task.accepted.title} was changed after this was asked for: ask again")
        clip = self._clips.find(task.data, task.config, connection, project=task.project)
        engine = self._engine(asked["engine"])
        with contextlib.closing(self._library.open(clip.video)) as video:
            masks = task.masks(video)
            assert isinstance(video, Source)  # one that leaves out frames has no such masks
            frames = choose_frames(asked["start"], asked["end"], task.accepted.cut.frames, len(video))
            dilate = DILATE if asked["dilate"] is None else asked["dilate"]
            holes = ObjectHoles(masks, frames, choose_objects(asked["objects"] or [], masks), dilate)
            filling = engine.begin(video, holes, frames, store)
            yield _Work(video, frames, holes, filling, engine, out, keep_audio=asked["keep_audio"] is not False)

    def _engine(self, name: str) -> Inpainter:
        if name not in self._engines:
            self._engines[name] = load_inpainter(name, self._settings)
        return self._engines[name]

    def _connection(self) -> Connection:
        connection = self._connections.current()
        if connection is None:
            raise LabelStudioError(
                "no Label Studio has connected since this server started: open the project's list of tasks once, or "
                "set TAM_LABEL_STUDIO_URL"
            )
        return connection


class _Work:
    """See ``sessions.removals.Work``."""

    def __init__(
        self,
        video: Source,
        frames: range,
        holes: ObjectHoles,
        filling: Filling,
        engine: Inpainter,
        out: Path,
        *,
        keep_audio: bool,
    ) -> None:
        self._video, self._frames, self._holes, self._filling = video, frames, holes, filling
        self._engine, self._out, self._keep_audio = engine, out, keep_audio
        self.total = filling.total + len(frames)

    def steps(self) -> Generator[int, None, None]:
        yield from self._filling.steps()
        written = write_result(
            self._out, None, self._video, self._frames, self._holes, self._filling, self._engine.terms,
            keep_audio=self._keep_audio,
        )  # fmt: skip
        with contextlib.closing(written):
            yield from (self._filling.total + i for i, _ in enumerate(written, 1))

    @property
    def report(self) -> Mapping[str, Any]:
        return asdict(self._holes.report.summary(self._filling)) | {"terms": self._engine.terms}


def _state(task: StudioTask) -> list[Any]:
    """Changes whenever the annotation does."""
    return [task.accepted.annotation.get(k) for k in ("id", "updated_at")]
