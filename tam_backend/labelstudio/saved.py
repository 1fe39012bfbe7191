"""What is done when somebody saves an annotation: it is noted, counted, and made whole where it is not."""

from __future__ import annotations

import logging
import sqlite3

from tam_backend.errors import TamError
from tam_backend.labelstudio.config import LabelConfig
from tam_backend.labelstudio.connections import Client, Connections
from tam_backend.labelstudio.outcomes import OutcomeCounter
from tam_backend.labelstudio.repair import repaired
from tam_backend.labelstudio.requests import Json
from tam_backend.sessions.tracks import TrackTable

log = logging.getLogger(__name__)


class SavedAnnotations:
    """Each method may take a request to Label Studio. None raises: what goes wrong is in the log."""

    def __init__(self, tracks: TrackTable, connections: Connections, outcomes: OutcomeCounter) -> None:
        self._tracks, self._connections, self._outcomes = tracks, connections, outcomes

    def note(self, annotation: Json, config: LabelConfig) -> None:
        """An annotation was submitted or updated."""
        connection = self._connections.current()
        result, task = annotation.get("result"), annotation.get("task")
        if connection is not None and isinstance(result, list) and isinstance(task, int):
            prompts = frozenset(str(r.get("id")) for r in result if isinstance(r, dict))
            try:
                self._tracks.submitted(connection.url, task, prompts)
            except sqlite3.Error as e:
                log.warning("task %s: it cannot be noted that it was submitted (%s)", task, e)
        self._repair(annotation, config)

    def _repair(self, annotation: Json, config: LabelConfig) -> None:
        """Make a saved annotation whole if it is not. Saving it makes an event again, which finds it whole."""
        connection = self._connections.current()
        result, number = annotation.get("result"), annotation.get("id")
        if connection is None or not isinstance(result, list) or not isinstance(number, int):
            return
        try:
            if repaired(result, config) is None:
                return
            client = Client(connection)
            regions = repaired(client.annotation(number)["result"], config)  # it may have changed since
            if regions is not None:
                client.replace_annotation_result(number, regions)
                log.info("annotation %s: made whole", number)
        except TamError as e:
            log.warning("annotation %s could not be made whole: %s", number, e)
        except Exception:
            log.exception("annotation %s could not be made whole", number)

    def count(self, annotation: Json, project: object, config: LabelConfig) -> None:
        """Note what became of our masks in a saved annotation."""
        try:
            self._outcomes.note(annotation, project, config)
        except Exception:
            log.exception("annotation %s: what became of its masks could not be counted", annotation.get("id"))
