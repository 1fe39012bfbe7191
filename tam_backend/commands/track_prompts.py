"""The prompts of ``tam track``: options on the command line become objects with prompts on frames, checked in full."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from tam_backend.errors import BadInput
from tam_backend.prompts import Box, Click, FramePrompts, Mask
from tam_backend.tracking.objects import MAX_ID
from tam_backend.video.base import Reader

#: object id -> frame -> what was given there
ObjectPrompts = dict[int, dict[int, FramePrompts]]

_CLICK = re.compile(r"([0-9]+),([^,:]+),([^,:]+)(,[+-])?(?::([0-9]+))?")
_BOX = re.compile(r"([0-9]+),([^,:]+),([^,:]+),([^,:]+),([^,:]+)(?::([0-9]+))?")
_MASK = re.compile(r"([0-9]+)=(.+)")
_MASK_OBJECT = re.compile(r"(.+):([0-9]+)")

#: A grey picture with more values than this is a photograph or a soft mask, not a map of object ids.
_MAX_OBJECTS_IN_GREY = 64


@dataclass(frozen=True, slots=True)
class ClickOption:
    """``--click text``."""

    text: str
    frame: int
    click: Click
    object_id: int


@dataclass(frozen=True, slots=True)
class MaskOption:
    """``--mask text``. object_id: the object that it is a mask of; None: the picture's values say."""

    text: str
    frame: int
    path: Path
    object_id: int | None


@dataclass(frozen=True, slots=True)
class BoxOption:
    """A box of a manifest, as it was written."""

    text: str
    frame: int
    box: Box
    object_id: int


def parse_click(text: str) -> ClickOption:
    """``FRAME,X,Y[,-][:OBJECT]``. Raises ArgumentTypeError."""
    match = _CLICK.fullmatch(text.replace(" ", ""))
    if match:
        try:
            x, y = float(match[2]), float(match[3])
        except ValueError:
            match = None
    if not match:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not FRAME,X,Y[,-][:OBJECT], such as 0,320,240 or 12,88.5,40,- or 0,320,240:2"
        )
    return ClickOption(text, int(match[1]), Click(x, y, positive=match[4] != ",-"), _object_id(match[5] or "1", text))


def parse_box(text: str) -> BoxOption:
    """``FRAME,LEFT,TOP,RIGHT,BOTTOM[:OBJECT]``. Raises ArgumentTypeError."""
    match = _BOX.fullmatch(text.replace(" ", ""))
    try:
        box = Box(*map(float, match.groups()[1:5])) if match else None
    except ValueError:
        box = None
    if match is None or box is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not FRAME,LEFT,TOP,RIGHT,BOTTOM[:OBJECT], such as 0,320,240,400,300 or 0,320,240,400,300:2"
        )
    return BoxOption(text, int(match[1]), box, _object_id(match[6] or "1", text))


def parse_mask(text: str) -> MaskOption:
    """``FRAME=PNG[:OBJECT]``. Raises ArgumentTypeError."""
    match = _MASK.fullmatch(text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not FRAME=PNG, such as 0=first.png or 0=person.png:2")
    path, object_id = match[2], None
    named = _MASK_OBJECT.fullmatch(path)
    if named and not Path(path).exists():  # a file may have such a name
        path, object_id = named[1], _object_id(named[2], text)
    return MaskOption(text, int(match[1]), Path(path), object_id)


def parse_label(text: str) -> tuple[int, str]:
    """``OBJECT=NAME``. Raises ArgumentTypeError."""
    number, equals, name = text.partition("=")
    if not (equals and name.strip() and re.fullmatch("[0-9]+", number)):
        raise argparse.ArgumentTypeError(f"{text!r} is not OBJECT=NAME, such as 1=Person")
    return _object_id(number, text), name.strip()


def _object_id(number: str, text: str) -> int:
    if not 1 <= int(number) <= MAX_ID:
        raise argparse.ArgumentTypeError(f"{text!r}: the object is a number from 1 to {MAX_ID}, not {number}")
    return int(number)


def collect_prompts(
    clicks: Sequence[ClickOption],
    masks: Sequence[MaskOption],
    video: Reader,
    frames: range,
    refine: bool = False,
    boxes: Sequence[BoxOption] = (),
) -> ObjectPrompts:
    """All prompts, by object and frame. refine: the masks are rough ones.

    Raises BadInput naming the option that cannot be used, and why.
    """
    if refine and not masks:
        raise BadInput("--refine-masks goes with --mask FRAME=PNG: there is no mask to refine")
    if not clicks and not masks and not boxes:
        raise BadInput("say what to track: --click FRAME,X,Y or --mask FRAME=PNG")
    objects: ObjectPrompts = {}
    for option in masks:
        _check_frame(f"--mask {option.text}", option.frame, video, frames)
        for object_id, mask in _masks_of(option).items():
            prompts = FramePrompts(mask=mask, refine=refine and bool(mask.any()))
            _check_size(f"--mask {option.text}", prompts, video)
            on_frames = objects.setdefault(object_id, {})
            if option.frame in on_frames:
                raise BadInput(f"--mask {option.text}: object {object_id} has another mask on frame {option.frame}")
            on_frames[option.frame] = prompts
    for boxed in boxes:
        _check_frame(f"box {boxed.text}", boxed.frame, video, frames)
        _check_size(f"box {boxed.text}", FramePrompts(box=boxed.box), video)
        if boxed.frame in objects.setdefault(boxed.object_id, {}):
            raise BadInput(f"box {boxed.text}: object {boxed.object_id} has a mask or another box on that frame")
        objects[boxed.object_id][boxed.frame] = FramePrompts(box=boxed.box)
    for given in clicks:
        _check_frame(f"--click {given.text}", given.frame, video, frames)
        _check_size(f"--click {given.text}", FramePrompts(clicks=(given.click,)), video)
        on_frames = objects.setdefault(given.object_id, {})
        known = on_frames.get(given.frame, FramePrompts())
        if known.by_hand:
            raise BadInput(
                f"--click {given.text}: object {given.object_id} has a mask on frame {given.frame}, which is the truth "
                "there; leave out the click or the mask, or say --refine-masks"
            )
        on_frames[given.frame] = replace(known, clicks=(*known.clicks, given.click))
    for object_id, on_frames in objects.items():
        if not any(p.mask.any() if p.mask is not None else p.locates for p in on_frames.values()):
            raise BadInput(
                f"object {object_id}: negative clicks or empty masks alone do not say where it is; "
                "give a positive click or a mask on some frame"
            )
    return dict(sorted(objects.items()))


def _check_frame(option: str, frame: int, video: Reader, frames: range) -> None:
    if frame >= len(video):
        raise BadInput(f"{option}: there is no frame {frame}, the video has frames 0 to {len(video) - 1}")
    if frame not in frames:
        raise BadInput(f"{option}: frame {frame} is not in the range --start {frames.start} --end {frames[-1]}")


def _check_size(option: str, prompts: FramePrompts, video: Reader) -> None:
    try:
        prompts.validate(video.height, video.width)
    except BadInput as e:
        raise BadInput(f"{option}: {e}") from e


def read_id_map(path: Path, option: str) -> tuple[npt.NDArray[np.uint8], bool]:
    """The pixel values of a PNG with masks, HxW uint8, and whether they are just object and background.

    option: named in the BadInput that is raised if it cannot be read, or is a picture of something else.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            values, is_binary = _values(image)
    except FileNotFoundError as e:
        raise BadInput(f"{option}: there is no file {path}") from e
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else "it is damaged or no PNG"
        raise BadInput(f"{option}: {path} cannot be read: {reason}") from e
    if values is None:
        raise BadInput(
            f"{option}: {path} is a colour or grey picture; a mask is an indexed PNG "
            "(pixel value = object) or a black and white one"
        )
    return values, is_binary


def _masks_of(option: MaskOption) -> Mapping[int, Mask]:
    """Object id -> HxW bool of a PNG: an indexed one or one of grey ids, or black and white for a single object."""
    values, is_binary = read_id_map(option.path, f"--mask {option.text}")
    present = [int(v) for v in np.unique(values) if v]
    if option.object_id is not None:
        if not is_binary and len(present) > 1:
            found = _listed(present)
            raise BadInput(f"--mask {option.text}: {option.path} holds the objects {found}; leave out the number")
        return {option.object_id: values > 0}
    if not present:
        raise BadInput(
            f"--mask {option.text}: {option.path} is empty; to say that an object is not on frame {option.frame}, "
            f"name it: --mask {option.frame}={option.path}:1"
        )
    return {1: values > 0} if is_binary else {object_id: values == object_id for object_id in present}


def _values(image: Image.Image) -> tuple[npt.NDArray[np.uint8] | None, bool]:
    """Pixel values (None: not those of a mask), and whether they are just object and background."""
    if image.mode == "P":
        return np.array(image), False
    if image.mode == "1":
        return np.array(image).astype(np.uint8), True
    if image.mode in ("RGB", "RGBA", "LA"):
        bands = [np.array(band) for band in image.split()]
        colours = bands[:-1] if image.mode in ("RGBA", "LA") else bands
        if any((band != colours[0]).any() for band in colours) or not _is_black_and_white(colours[0]):
            return None, False
        return colours[0], True
    if image.mode != "L":
        return None, False
    values = np.array(image)
    if _is_black_and_white(values):
        return values, True
    return (values, False) if len(np.unique(values)) <= _MAX_OBJECTS_IN_GREY else (None, False)


def _is_black_and_white(values: npt.NDArray[np.uint8]) -> bool:
    return bool(np.isin(values, (0, 255)).all())


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
