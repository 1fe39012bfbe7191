"""What ``tam batch --project`` brings back to Label Studio: a prediction for each task of a video that is done."""

from __future__ import annotations

import contextlib
import sys
import zipfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tam_backend.cluster.places import Place
from tam_backend.commands.batch_manifest import Item
from tam_backend.commands.batch_project import ProjectVideos
from tam_backend.commands.batch_work import read_qualities
from tam_backend.engines import Engine
from tam_backend.errors import TamError
from tam_backend.export.dataset import MaskedFrame, Track
from tam_backend.export.tracked import read_tracked
from tam_backend.labelstudio.cuts import Cut
from tam_backend.labelstudio.posting import model_version, prediction_of, put_prediction
from tam_backend.labelstudio.projects import Vanished
from tam_backend.labelstudio.regions import mask_region, quality_note
from tam_backend.labelstudio.requests import Json
from tam_backend.quality import review


@dataclass(slots=True)
class _Clip:
    """A task while the frames of its video pass. masks, qualities: track -> frame as the engines count -> ..."""

    task: int
    cut: Cut
    masks: dict[int, dict[int, Json]] = field(default_factory=dict)
    qualities: dict[int, dict[int, float]] = field(default_factory=dict)

    def number(self, frame: int) -> int:
        """Of every n-th frame the engines of the server see those alone, and count them."""
        return frame // self.cut.every


class Sender:
    """Sends what is done, as it is done. Label Studio may go away meanwhile: then the rest is for the next call.

    sent: name of a video -> its tasks that have their prediction. refused: what Label Studio did not take, in words.
    gone: it does not answer any more.
    """

    def __init__(self, project: ProjectVideos, items: Iterable[Item], place: Place, engine: Engine) -> None:
        self.sent: dict[str, list[int]] = {}
        self.refused: list[str] = []
        self.gone: Vanished | None = None
        self._project = project
        self._items = {item.name: item for item in items}
        self._place = place
        self._engine = engine

    def send(self, name: str) -> None:
        """Send the predictions of a video, unless they are there."""
        if self.gone is not None:
            return
        sent: list[int] = []
        try:
            with self._folder(name) as folder, contextlib.closing(self._predictions(name, folder)) as predictions:
                for task, prediction in predictions:
                    try:
                        self._put(task, prediction)
                        sent.append(task)
                    except Vanished:
                        raise
                    except TamError as e:
                        self._refuse(f"{name}, task {task}: {e}")
        except Vanished as e:
            self.gone = e
            print(f"tam batch: {e}; nothing more is sent by this call", file=sys.stderr)
            return
        except (TamError, OSError) as e:
            self._refuse(f"{name}: {e}")
        self.sent[name] = sent

    def _put(self, task: int, prediction: Json) -> None:
        if prediction["result"]:
            put_prediction(
                self._project.client, task, prediction,
                lambda p: (p.get("result"), p.get("score")) == (prediction["result"], prediction["score"]),
            )  # fmt: skip

    def _refuse(self, why: str) -> None:
        self.refused.append(why)
        print(f"tam batch: not sent: {why}", file=sys.stderr)

    @contextlib.contextmanager
    def _folder(self, name: str) -> Iterator[Path]:
        """What was written of a video, on this machine."""
        if self._place.folder is not None:
            yield self._place.folder / name
            return
        with TemporaryDirectory(prefix="tam-batch-") as work:
            packed = Path(work) / "packed.zip"
            packed.write_bytes(self._place.read(f"{name}.zip") or b"")
            with zipfile.ZipFile(packed) as archive:
                archive.extractall(Path(work) / "masks")
            yield Path(work) / "masks"

    def _predictions(self, name: str, folder: Path) -> Generator[tuple[int, Json], None, None]:
        """(task, prediction) of the tasks of a video, in one pass over its frames; few clips are in memory at once."""
        video, item = self._project.videos[name], self._items[name]
        [tracked] = read_tracked(folder).videos
        qualities = read_qualities(folder)
        waiting = sorted((_Clip(task, cut) for task, cut in video.tasks), key=lambda c: c.cut.first, reverse=True)
        here: list[_Clip] = []
        for found, given in _beside(tracked.read(), self._project.confirmed(video, tracked.height, tracked.width)):
            while waiting and waiting[-1].cut.first <= found.frame:
                here.append(waiting.pop())
            for clip in here:
                if found.frame in clip.cut.frames:
                    self._note(clip, tracked.tracks, found, given, qualities[found.frame])
            for clip in [c for c in here if c.cut.frames[-1] <= found.frame]:
                here.remove(clip)
                yield clip.task, self._prediction(clip, item, tracked.tracks)

    def _note(
        self,
        clip: _Clip,
        tracks: Iterable[Track],
        found: MaskedFrame,
        given: MaskedFrame | None,
        qualities: Mapping[int, float],
    ) -> None:
        """Take a frame into a clip. Where people gave a mask, it is that one: two of theirs may overlap."""
        config, number = self._project.config, clip.number(found.frame)
        index = clip.cut.frames.index(found.frame)
        for track in tracks:
            clip.qualities.setdefault(track.id, {})[number] = qualities[track.id]
            mask = (given.masks if given else {}).get(track.id, found.masks.get(track.id))
            if mask is not None:
                control = config.mask_control(config.frames_keys[0][0], track.label)
                meta = quality_note(self._engine.name, number, qualities[track.id], self._engine.version)
                region = mask_region(control, track.label, index, mask, qualities[track.id], meta)
                clip.masks.setdefault(track.id, {})[number] = region

    def _prediction(self, clip: _Clip, item: Item, tracks: Iterable[Track]) -> Json:
        decided: dict[int, set[int]] = {}
        for track, frame in [
            *((m.object_id, m.frame) for m in item.masks),
            *((b.object_id, b.frame) for b in item.boxes),
        ]:
            if track is not None and frame in clip.cut.frames:
                decided.setdefault(track, set()).add(clip.number(frame))
        objects = [
            (clip.masks.get(t.id, {}), review(clip.qualities.get(t.id, {}), decided.get(t.id, ())), ()) for t in tracks
        ]
        version = model_version(self._engine.name)
        return prediction_of(objects, version, self._project.config, clip.cut.count)


def _beside(
    tracked: Iterable[MaskedFrame], given: Iterator[MaskedFrame]
) -> Iterator[tuple[MaskedFrame, MaskedFrame | None]]:
    """Frames with those of the same number in ``given``. Both ascend."""
    ahead = next(given, None)
    for found in tracked:
        while ahead is not None and ahead.frame < found.frame:
            ahead = next(given, None)
        yield found, ahead if ahead is not None and ahead.frame == found.frame else None
