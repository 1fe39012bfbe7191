"""The index of a video: which coded picture is frame i, when it is shown, and where decoding for it must start."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tam_backend.video.pixels import Orientation

Ints = npt.NDArray[np.int64]
NONE = np.iinfo(np.int64).min  # a timestamp or position that the container does not give


@dataclass(frozen=True, eq=False)
class Index:
    """P coded packets in file order, F frames in presentation order.

    pts, dts, pos, size: (P,) as the container gives them, in units of the stream's time base and in bytes.
    packet: (F,) the packet that holds the frame. start: (F,) the packet from which decoding must start so that the
    frame comes out exactly as in decoding from the beginning. times: (F,) float64 seconds, 0 for the first frame.
    width, height, orientation: of the first frame, the size as it is shown. warning: what is missing, in a sentence,
    or None. verified: made by decoding everything. damaged: decoding reported errors.
    """

    pts: Ints
    dts: Ints
    pos: Ints
    size: Ints
    packet: Ints
    start: Ints
    times: npt.NDArray[np.float64]
    width: int
    height: int
    orientation: Orientation
    warning: str | None
    verified: bool
    damaged: bool

    def __len__(self) -> int:
        return len(self.packet)

    @cached_property
    def frame_of_packet(self) -> Ints:
        """(P,) the first frame that a packet holds, -1 for packets that show nothing."""
        frames = np.full(len(self.pts), -1, np.int64)
        frames[self.packet[::-1]] = np.arange(len(self))[::-1]
        return frames

    @cached_property
    def packet_names(self) -> dict[tuple[int, int, int], int]:
        """Packet number by what identifies it wherever reading starts; empty if that is not unique.

        The decoding timestamp is left out: after a seek some demuxers can no longer give it.
        """
        names = zip(self.pts.tolist(), self.pos.tolist(), self.size.tolist(), strict=True)
        numbers = {name: number for number, name in enumerate(names)}
        return numbers if len(numbers) == len(self.pts) else {}

    @cached_property
    def entries(self) -> Ints:
        """The packets from which decoding can start, ascending."""
        return np.unique(self.start)


def starts(packet: Ints, entries: Ints) -> Ints:
    """For every frame the packet to start decoding from; 0, the beginning, where no entry fits.

    packet: (F,) packet of each frame. entries: ascending packets at which decoding can start. An entry serves the
    frames that follow it both in the file and on the screen: pictures after it in the file that are shown before it
    (the leading pictures of an open group of pictures) need the group before.
    """
    frame_of = {int(p): f for f, p in reversed(list(enumerate(packet.tolist())))}
    usable = np.array([e for e in entries.tolist() if e in frame_of], np.int64)
    first_frame = np.array([frame_of[e] for e in usable.tolist()], np.int64)
    by_frame = np.argsort(first_frame, kind="stable")
    usable, first_frame = usable[by_frame], first_frame[by_frame]
    result = np.zeros(len(packet), np.int64)
    at = np.searchsorted(first_frame, np.arange(len(packet)), side="right") - 1
    for frame, entry in enumerate(at.tolist()):
        while entry >= 0 and usable[entry] > packet[frame]:
            entry -= 1
        if entry >= 0:
            result[frame] = usable[entry]
    return result
