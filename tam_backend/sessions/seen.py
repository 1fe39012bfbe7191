"""What a person was looking at when they began to click on a frame."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from tam_backend.prompts import Mask
from tam_backend.propagators.base import SOFT_THRESHOLD, Propagated
from tam_backend.sessions.blobs import lasting_key
from tam_backend.tracking.store import BlobStore, pack_frame, unpack_frame


class SeenMasks:
    """Remembers, per first point of a frame, the mask that was there before it (or that there was none).

    The clicks on a frame mean "change this mask here", so that mask belongs to the prompt. It must stay the same for
    all later requests, although by then the frame shows the changed mask.
    """

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def get(self, work: Hashable, point_id: str) -> tuple[bool, Mask | None]:
        """(known, mask): mask is HxW bool, or None where the frame had none."""
        blob = self._store.get(self._key(work, point_id))
        if blob is None:
            return False, None
        return True, unpack_frame(blob).soft >= SOFT_THRESHOLD if blob != b"none" else None

    def set(self, work: Hashable, point_id: str, mask: Mask | None) -> None:
        blob = b"none"
        if mask is not None:
            blob = pack_frame(Propagated(mask.astype(np.uint8) * np.uint8(255), 1.0))
        self._store.put(self._key(work, point_id), blob)

    @staticmethod
    def _key(work: Hashable, point_id: str) -> str:
        return lasting_key((work, point_id))
