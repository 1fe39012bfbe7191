"""Frames' addresses that end (TAM_FRAME_LINK_DAYS) are renewed in the tasks of all projects, in good time.

Opening a task renews its addresses as well (``ClipFiller.needs_frames``). But Label Studio does not ask for tasks that
have predictions or annotations, and a page shows what was there when it was opened.
"""

from __future__ import annotations

import contextlib
import logging
import threading

from tam_backend.errors import LabelConfigError, TamError
from tam_backend.labelstudio.clips import ClipFiller
from tam_backend.labelstudio.config import parse_label_config
from tam_backend.labelstudio.connections import Client, Connections
from tam_backend.labelstudio.links import FrameLinks
from tam_backend.settings import Settings
from tam_backend.tracking.filestore import write_atomically

log = logging.getLogger(__name__)

#: How often it is looked whether addresses are due. After a failure the next look is the next attempt.
CHECK_SECONDS = 300.0


class LinkRenewal:
    """A thread that renews addresses, if they end at all or did before.

    base: address of this server as browsers reach it, "" until it is known. A note in the data folder says what was
    renewed, so that a restart does not read all tasks again.
    """

    def __init__(self, clips: ClipFiller, links: FrameLinks, connections: Connections, settings: Settings) -> None:
        self.base = settings.public_url
        self._clips = clips
        self._links = links
        self._connections = connections
        self._note = settings.data_dir / "renewed"
        self._stop = threading.Event()
        if links.expires or self._note.exists():
            threading.Thread(target=self._run, name="renewal", daemon=True).start()

    def close(self) -> None:
        """Stop after the task that is being written."""
        self._stop.set()

    def renew(self) -> int:
        """Renew what is due; returns the number of tasks. Raises TamError where Label Studio does not play along."""
        connection, base = self._connections.current(), self.base
        due = f"{self._links.expires} {base}"
        if connection is None or not base or self._done() == due:
            return 0
        client, renewed = Client(connection), 0
        for project in client.projects():
            try:
                config = parse_label_config(str(project.get("label_config") or ""))
            except LabelConfigError:
                continue  # not one of ours
            for task in client.project_tasks(project["id"]):
                if self._stop.is_set():
                    return renewed
                if self._clips.is_moved(task["data"], config, base):
                    self._clips.fill(task["id"], project["id"], config, connection, base)
                    renewed += 1
        write_atomically(self._note, due.encode())
        log.info("the addresses of frames were renewed in %d tasks", renewed)
        return renewed

    def _done(self) -> str:
        with contextlib.suppress(OSError):
            return self._note.read_text()
        return ""

    def _run(self) -> None:
        while not self._stop.wait(CHECK_SECONDS):
            try:
                self.renew()
            except TamError as e:
                log.warning("the addresses of frames could not be renewed, which is tried again: %s", e)
            except Exception:
                log.exception("the addresses of frames could not be renewed, which is tried again")
