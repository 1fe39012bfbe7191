"""How label-studio-ml 2.x calls a model class, in small: pip cannot install it, it is on GitHub only.

After its model.py and api.py of August 2026 (2.0.1.dev0): what the base class does while it is built, and what its
server passes to ``setup``, ``predict`` and ``fit`` and makes of what they return.
"""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, jsonify, request


class LabelStudioMLBase:
    """Keeps what it knows by project, outside of itself; the real one in a database on disk."""

    CACHE: dict[tuple[str, str], str] = {}  # noqa: RUF012 (a test empties it)

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id = project_id or ""
        if label_config is not None:
            self.set("label_config", label_config)
        if not self.model_version:
            self.set("model_version", "0.0.1")
        self.setup()

    def setup(self) -> None:
        raise AssertionError("the real one does nothing here, so a model that relies on it has no version")

    def get(self, key: str) -> str | None:
        return self.CACHE.get((self.project_id, key))

    def set(self, key: str, value: str) -> None:
        if not isinstance(value, str):
            raise ValueError("only text can be kept")
        self.CACHE[self.project_id, key] = value

    @property
    def label_config(self) -> str | None:
        return self.get("label_config")

    @property
    def model_version(self) -> str | None:
        return self.get("model_version")


def make_server(model_class: Any) -> Flask:
    """Its server: a model for each request."""
    app = Flask("library-2x")

    @app.post("/setup")
    def setup() -> Response:
        body = request.json
        model = model_class(project_id=body["project"].split(".", 1)[0], label_config=body["schema"])
        return jsonify(model_version=model.get("model_version"))

    @app.post("/predict")
    def predict() -> Response:
        body = request.json
        params = body["params"]
        context = params.pop("context")
        model = model_class(project_id=body["project"].split(".", 1)[0], label_config=body["label_config"])
        results = model.predict(body["tasks"], context=context, **params)
        assert isinstance(results, list)  # or its ModelResponse, which ours is not
        return jsonify(results=results)

    @app.post("/webhook")
    def webhook() -> tuple[Response, int]:
        body = request.json
        event = body.pop("action")
        if event not in ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATION_DELETED", "START_TRAINING"):
            return jsonify(status="Unknown event"), 200
        model = model_class(str(body["project"]["id"]), label_config=body["project"]["label_config"])
        return jsonify(result=model.fit(event, body), status="ok"), 201

    return app
