"""The model class that Label Studio's ML backend library expects. It translates; the work is done in tam_backend."""

from __future__ import annotations

import functools
import os
from typing import Any

from label_studio_ml.model import LabelStudioMLBase

from tam_backend.labelstudio.service import Service
from tam_backend.settings import Settings, with_library_names


@functools.cache
def shared_service() -> Service:
    """The service of a process in which the library's own server runs, not ours. Made when first asked for."""
    return Service(Settings.from_env(with_library_names(os.environ)))


class TrackAnything(LabelStudioMLBase):
    """Keypoints on frames of a video become masks on all its frames.

    Works under label-studio-ml 1.0.9, which builds it at every /setup, and 2.x, which builds it for each request.
    """

    def __init__(self, *args: Any, service: Service | None = None, base_url: str = "", **kwargs: Any) -> None:
        self._service = service or shared_service()  # before the base class's part: that of 2.x calls setup()
        self._base_url = base_url or self._service.settings.public_url
        # Under our own server the library's base class gets no configuration: its parser raises on some that work.
        super().__init__(*args, **({**kwargs, "label_config": None} if service else kwargs))
        # As given: 2.x keeps its own copy for each project on disk, where the next request replaces it.
        self._label_config = kwargs.get("label_config") or self.label_config
        self._service.connections.remember(kwargs.get("hostname"), kwargs.get("access_token"))

    def setup(self) -> None:
        """Called by 2.x, at the end of its ``__init__``."""
        if self.get("model_version") != self._service.model_version:
            self.set("model_version", self._service.model_version)

    def predict(self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        """One entry for each task: a prediction ``{"result": regions, "score": ..., "model_version": ...}``, or []."""
        project = kwargs.get("project") or getattr(self, "project_id", None)
        return self._service.predict(tasks, self._label_config, context, project, self._base_url)

    def fit(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Nothing is trained. What an event asks for is begun, above all that saved annotations are made whole.

        1.0.9 calls ``fit((), event=..., data=...)``, 2.x ``fit(event, data)``.
        """
        event = kwargs.get("event") or next((a for a in args if isinstance(a, str)), None)
        data = kwargs.get("data") or next((a for a in args if isinstance(a, dict)), {})
        if event:
            self._service.webhook({**data, "action": event}, self._base_url)
        return {}
