"""URLs of served frames: signed, so that only what we handed out can be read; they may end after a time.

Browsers fetch frames without cookies or credentials, so the URL itself is the permission.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

_PATH = re.compile(r"/frames/(?P<video>[0-9a-f]{32})/(?P<index>\d{1,9})\.jpg$", re.ASCII)


def load_secret(data_dir: Path) -> bytes:
    """The signing secret of this installation, made at the first start and kept readable by its owner only."""
    path = data_dir / "secret"
    try:
        return bytes.fromhex(path.read_text())
    except FileNotFoundError:
        data_dir.mkdir(parents=True, exist_ok=True)
        temporary = data_dir / f".secret-{secrets.token_hex(4)}"
        temporary.touch(mode=0o600)
        temporary.write_text(secrets.token_hex(32))
        try:
            path.hardlink_to(temporary)  # unlike a rename, this does not replace one that another process just made
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
        return bytes.fromhex(path.read_text())


def frame_of(url: object) -> tuple[str, int] | None:
    """(video, index) of an address that looks like ours, whoever signed it: for programs that only read tasks."""
    if not isinstance(url, str):
        return None
    try:
        match = _PATH.search(urlsplit(url).path)
    except ValueError:
        return None
    return (match["video"], int(match["index"])) if match else None


@dataclass(frozen=True, slots=True)
class Permission:
    """What a URL's query says. expires: Unix seconds, 0 for never."""

    signature: str
    expires: int

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Permission:
        text = query.get("exp", "0")
        return cls(query.get("sig", ""), int(text) if re.fullmatch(r"\d{1,12}", text, re.ASCII) else -1)


class FrameLinks:
    """Makes and checks frame URLs such as ``http://host/frames/<video>/12.jpg?sig=...``.

    days: how long a URL is good, 0 for ever. All that are made in one half of that time end at the same moment, so
    they are equal, and have at least half of it before them. Then those are due for renewal that were made before.
    """

    def __init__(self, secret: bytes, days: float = 0, clock: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._half = round(days * 86_400 / 2)
        self._clock = clock

    @property
    def expires(self) -> int:
        """When URLs that are made now end, in Unix seconds; 0 for never."""
        return (int(self._clock()) // self._half + 2) * self._half if self._half else 0

    def url(self, base: str, video: str, index: int) -> str:
        expires = self.expires
        end = f"&exp={expires}" if expires else ""
        return f"{base}/frames/{video}/{index}.jpg?sig={self._sign(video, expires)}{end}"

    def signed(self, video: str, permission: Permission) -> bool:
        """Whether we made a URL, be it over or not."""
        expected = self._sign(video, permission.expires).encode()
        return hmac.compare_digest(expected, permission.signature.encode("utf-8", "replace"))

    def seconds_left(self, permission: Permission) -> float:
        """How long a signed URL is good; inf for ever. None is good for longer than the present setting says, nor for
        ever if there is one: what was made before counts as over."""
        left = permission.expires - self._clock() if permission.expires else float("inf")
        return left if not self._half or left <= 2 * self._half else 0.0

    def parse(self, url: object) -> tuple[str, int] | None:
        """(video, index) of a URL that we signed, be it over or not; None for any other. Its host does not matter: it
        may have moved."""
        found = frame_of(url)
        if found is None:
            return None
        query = parse_qs(urlsplit(str(url)).query)
        permission = Permission.read({name: values[0] for name, values in query.items()})
        return found if self.signed(found[0], permission) else None

    def _sign(self, video: str, expires: int) -> str:
        """One signature for all frames of a video."""
        text = f"frames/{video}/{expires}" if expires else f"frames/{video}"
        return hmac.new(self._secret, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:32]
