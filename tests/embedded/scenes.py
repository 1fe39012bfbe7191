"""Short videos with known masks: textured discs that move over a textured, moving background."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from tam_backend.prompts import Mask
from tam_backend.video.base import Frame

Place = Callable[[int], tuple[float, float]]


@dataclass
class ArrayReader:
    """Frames from memory; counts what is read."""

    frames: Sequence[Frame]
    key: str
    reads: list[int] = field(default_factory=list)

    @property
    def height(self) -> int:
        return int(self.frames[0].shape[0])

    @property
    def width(self) -> int:
        return int(self.frames[0].shape[1])

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Frame:
        if not 0 <= index < len(self.frames):
            raise IndexError(index)
        self.reads.append(index)
        return self.frames[index]

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)

    def __reversed__(self) -> Iterator[Frame]:
        return reversed(self.frames)

    def time(self, index: int) -> float:
        return index / 25

    def clone(self) -> ArrayReader:
        return ArrayReader(self.frames, self.key)

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Disc:
    place: Place
    radius: float
    colour: tuple[int, int, int]


def texture(height: int, width: int, colour: tuple[int, int, int], seed: int, contrast: float = 40) -> np.ndarray:
    """HxWx3 float32: smooth noise around a colour."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.normal(size=(height, width)).astype(np.float32), (0, 0), 2)
    return np.asarray(colour, np.float32) + contrast * (noise / noise.std())[..., None]


def scene(
    height: int,
    width: int,
    count: int,
    discs: Sequence[Disc],
    camera: tuple[float, float] = (1.0, 0.5),
    key: str = "scene",
) -> tuple[ArrayReader, list[list[Mask]]]:
    """A reader, and for each disc its visible masks by frame. Later discs cover earlier ones."""
    margin = 64
    ground = texture(height + 2 * margin, width + 2 * margin, (90, 130, 90), seed=1)
    skins = [texture(2 * int(d.radius) + 9, 2 * int(d.radius) + 9, d.colour, seed=10 + n) for n, d in enumerate(discs)]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    frames: list[Frame] = []
    masks: list[list[Mask]] = [[] for _ in discs]
    for t in range(count):
        gx, gy = x + margin + camera[0] * t, y + margin + camera[1] * t
        image = cv2.remap(ground, gx, gy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        shown = []
        for disc, skin in zip(discs, skins, strict=True):
            cx, cy = disc.place(t)
            half = skin.shape[0] / 2
            inside = (x - cx) ** 2 + (y - cy) ** 2 <= disc.radius**2
            moved = cv2.remap(skin, x - cx + half, y - cy + half, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
            image[inside] = moved[inside]
            shown = [mask & ~inside for mask in shown] + [inside]
        for mask_list, mask in zip(masks, shown, strict=True):
            mask_list.append(mask)
        frames.append(np.clip(image, 0, 255).astype(np.uint8))
    return ArrayReader(frames, f"{key}-{height}x{width}x{count}"), masks


def behind_wall(
    reader: ArrayReader, masks: Sequence[Mask], left: int, right: int, camera: tuple[float, float]
) -> tuple[ArrayReader, list[Mask]]:
    """The same with a wall as high as the picture, which stands on the ground, in front of everything.

    left, right: its edges on the first frame. camera: as for ``scene``.
    """
    margin = 32
    skin = texture(reader.height + 4 * margin, right - left, (120, 110, 70), seed=99)
    x, y = np.meshgrid(np.arange(reader.width, dtype=np.float32), np.arange(reader.height, dtype=np.float32))
    frames: list[Frame] = []
    visible: list[Mask] = []
    for t, (frame, mask) in enumerate(zip(reader.frames, masks, strict=True)):
        across, down = x + np.float32(camera[0] * t - left), y + np.float32(camera[1] * t + margin)
        covered = (across >= 0) & (across < right - left)
        wall = cv2.remap(skin, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        frames.append(np.where(covered[..., None], np.clip(wall, 0, 255).astype(np.uint8), frame))
        visible.append(mask & ~covered)
    return ArrayReader(frames, f"wall-{left}-{right}-{reader.key}"), visible


RED, BLUE = (200, 80, 70), (70, 90, 200)


def moving_disc(count: int = 11) -> tuple[ArrayReader, list[Mask]]:
    reader, masks = scene(120, 160, count, [Disc(lambda t: (50 + 4 * t, 60 + t), 22, RED)], key="moving")
    return reader, masks[0]


def iou(a: Mask, b: Mask) -> float:
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0
