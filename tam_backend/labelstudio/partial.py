"""A file that arrives in pieces: over several attempts, and across restarts of this server."""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from tam_backend.errors import MediaError
from tam_backend.labelstudio.transport import Response

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)", re.ASCII)
_EMPTY = re.compile(r"bytes \*/(\d+)", re.ASCII)
_BLOCK = 1 << 20


class Broken(Exception):
    """An attempt that failed in a way that may not last. Its text is for people."""


@dataclass(slots=True)
class _Known:
    """What the server said of the file. total: bytes as they are sent. encoding: how they are packed, "" if not."""

    source: str
    total: int | None = None
    etag: str = ""
    modified: str = ""
    encoding: str = ""


class Partial:
    """``NAME.part`` beside the file that it becomes, with a note of what is known about it. For one thread.

    source: what identifies the file wherever redirects lead. A part of anything else is thrown away.
    """

    def __init__(self, target: Path, source: str) -> None:
        self.target = target
        self._path = target.with_name(target.name + ".part")
        self._note = target.with_name(target.name + ".part.json")
        target.parent.mkdir(parents=True, exist_ok=True)
        self._known = self._load(source)
        self._plain = False
        self._complete = False
        self._end: int | None = None
        self._file: BinaryIO = self._path.open("r+b" if self.size else "w+b")

    @property
    def size(self) -> int:
        """Bytes that are here."""
        return self._path.stat().st_size if self._path.exists() else 0

    @property
    def total(self) -> int | None:
        """Bytes of the whole, if the server has said so."""
        return self._known.total

    @property
    def complete(self) -> bool:
        return self._complete

    def headers(self) -> dict[str, str]:
        """What to ask for: what is missing, provided that it is still the same file.

        A range is asked for also at the beginning: Label Studio tells the length of an upload in answers to those only.
        """
        if self._plain:
            return {"Accept-Encoding": "identity"}
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={self.size}-"}
        strong = self._known.etag if not self._known.etag.startswith("W/") else ""
        if self.size and (strong or self._known.modified):
            headers["If-Range"] = strong or self._known.modified
        return headers

    def begin(self, response: Response) -> int:
        """Take note of an answer (200, 206 or 416); returns where its body goes. Raises Broken or MediaError."""
        if response.status == 416:
            return self._nothing_more(response)
        said = self._said(response)
        if response.status == 200:
            self._end = said.total
            self._restart(said)
            return 0
        match = _RANGE.fullmatch(response.headers.get("content-range", ""))
        if match is None or self._plain:
            self._restart(_Known(self._known.source))
            if self._plain:
                raise MediaError("its server answers with a part although the whole was asked for")
            self._plain = True
            raise Broken("its server answers with a part and does not say which")
        first, last, said.total = (int(n) for n in match.groups())
        length = response.headers.get("content-length", "")
        if not first <= last < said.total or (length.isdigit() and int(length) != last - first + 1):
            self._restart(_Known(self._known.source))
            raise MediaError(
                f"its server contradicts itself about the length: {match[0]!r}, but {length or 'no'} bytes to come"
            )
        if first != self.size or (first and not self._same(said)):
            self._restart(_Known(self._known.source))
            raise Broken("the file changed on its server meanwhile")
        self._end = last + 1
        self._known = said
        self._save()
        self._file.seek(first)
        return first

    def write(self, piece: bytes) -> None:
        """Append. Raises MediaError when more comes than was announced."""
        at = self._file.tell() + len(piece)
        if self._end is not None and at > self._end:
            self.discard()
            raise MediaError(f"its server sends more than the {self._end} bytes that it announced")
        self._file.write(piece)

    def end(self) -> None:
        """The body of an answer ended in good order. Raises Broken if that was not the whole of it."""
        self._file.flush()
        have = self._file.tell()
        if self._end is not None and have < self._end:
            raise Broken(f"the connection ended after {have} of {self._end} bytes")
        self._complete = self._known.total is None or have == self._known.total

    def pause(self) -> None:
        """Keep what is here for a later attempt."""
        self._file.flush()

    def finish(self, max_bytes: int) -> None:
        """Turn the part into the file, in one moment. Raises MediaError if it is packed and cannot be unpacked."""
        self._file.flush()
        os.fsync(self._file.fileno())
        try:
            if self._known.encoding:
                self._unpack(max_bytes)
            else:
                self._path.replace(self.target)
        finally:
            self._note.unlink(missing_ok=True)

    def discard(self) -> None:
        """Throw away what is here: nobody will want to go on with it."""
        self._path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def close(self) -> None:
        self._file.close()
        with contextlib.suppress(OSError):
            if self._path.stat().st_size == 0:
                self.discard()

    def _nothing_more(self, response: Response) -> int:
        match = _EMPTY.fullmatch(response.headers.get("content-range", ""))
        if match and self.size and int(match[1]) == self.size == (self._known.total or self.size):
            self._complete = True
            return self.size
        if match and int(match[1]) == 0:
            raise MediaError("it is empty")
        if self.size == 0:
            self._plain = True
        self._restart(_Known(self._known.source))
        raise Broken("its server does not have the part that is missing")

    def _said(self, response: Response) -> _Known:
        headers = response.headers
        encoding = headers.get("content-encoding", "").lower().strip()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise MediaError(f"its server packs it ({encoding[:40]!r}) although that was not asked for")
        length = headers.get("content-length", "")
        return _Known(
            self._known.source,
            int(length) if length.isascii() and length.isdigit() and len(length) < 20 else None,
            _plain(headers.get("etag", "")),
            _plain(headers.get("last-modified", "")),
            "" if encoding == "identity" else encoding,
        )

    def _same(self, said: _Known) -> bool:
        """Whether an answer continues the file that is here. Label Studio's uploads have nothing but their length."""
        known = self._known
        return (
            known.total == said.total
            and known.encoding == said.encoding
            and (not known.etag or not said.etag or known.etag == said.etag)
            and (not known.modified or not said.modified or known.modified == said.modified)
        )

    def _restart(self, known: _Known) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._known = known
        self._save()

    def _unpack(self, max_bytes: int) -> None:
        unpacked = self.target.with_name(self.target.name + ".unpacked")
        decoder = zlib.decompressobj(wbits=47 if "gzip" in self._known.encoding else 15)  # 47: gzip or zlib
        try:
            self._file.seek(0)
            with unpacked.open("wb") as out:
                size = 0
                for block in iter(lambda: decoder.unconsumed_tail or self._file.read(_BLOCK), b""):
                    size += out.write(decoder.decompress(block, _BLOCK))
                    if size > max_bytes:
                        raise MediaError(f"it is larger than {max_bytes / 1e6:g} MB once unpacked")
                    if decoder.eof:
                        break
                out.write(decoder.flush())
            if not decoder.eof:
                raise MediaError("its server packed it, and it cannot be unpacked: it is cut off")
            unpacked.replace(self.target)
        except zlib.error as e:
            raise MediaError("its server packed it, and it cannot be unpacked") from e
        finally:
            unpacked.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)

    def _load(self, source: str) -> _Known:
        try:
            known = _Known(**json.loads(self._note.read_text()))
            if known.source == source and self._path.exists() and self.size <= (known.total or self.size):
                return known
        except (OSError, ValueError, TypeError):
            pass
        self._path.unlink(missing_ok=True)
        return _Known(source)

    def _save(self) -> None:
        temporary = self._note.with_name(self._note.name + "~")
        temporary.write_text(json.dumps(asdict(self._known)))
        temporary.replace(self._note)


def _plain(value: str) -> str:
    """What can be sent back in a header."""
    return value if value.isascii() and value.isprintable() and len(value) <= 1000 else ""
