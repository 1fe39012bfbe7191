"""URLs of served frames: signed, so that only what we handed out can be read, and without expiry.

Browsers fetch frames without cookies or credentials, so the URL itself is the permission.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
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


class FrameLinks:
    """Makes and checks frame URLs such as ``http://host/frames/<video>/12.jpg?sig=...``."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def url(self, base: str, video: str, index: int) -> str:
        return f"{base}/frames/{video}/{index}.jpg?sig={self.sign(video)}"

    def sign(self, video: str) -> str:
        """One signature for all frames of a video."""
        return hmac.new(self._secret, f"frames/{video}".encode(), hashlib.sha256).hexdigest()[:32]

    def valid(self, video: str, signature: str) -> bool:
        return hmac.compare_digest(self.sign(video).encode(), signature.encode())

    def parse(self, url: object) -> tuple[str, int] | None:
        """(video, index) of a URL that we signed; None for any other. Its host does not matter: it may have moved."""
        found = frame_of(url)
        if found is None or not self.valid(found[0], parse_qs(urlsplit(str(url)).query).get("sig", [""])[0]):
            return None
        return found
