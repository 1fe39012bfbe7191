"""The HTTP side: routes that Label Studio calls, and the frames that browsers fetch."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from tam_backend.errors import BadInput, TamError
from tam_backend.labelstudio.service import Service
from tam_backend.logfacts import log_about
from tam_backend.server.auth import Guard
from tam_backend.server.bodies import json_body
from tam_backend.server.frames import FrameServer, frames_blueprint
from tam_backend.server.metrics import count_requests, metrics_blueprint
from tam_backend.server.openapi import openapi_blueprint
from tam_backend.server.removals import removals_blueprint
from tam_backend.server.status import status_blueprint
from tam_backend.sessions.progress import Progress
from tam_backend.settings import Settings

log = logging.getLogger(__name__)

#: Requests served at once. Most of them wait: for their turn, for a draft, for a video.
THREADS = 64
#: So many of them may be requests for masks.
MAX_PREDICTS = 48


def create_app(
    settings: Settings,
    model_class: Callable[..., Any],
    service: Service | None = None,
    progress: Progress | None = None,
) -> Flask:
    """The application.

    model_class: makes a model (``predict``) from label_config, service and base_url, as Label Studio's library would.
    service: made from the settings if there is none yet. progress: that of the service if not given.
    """
    service = service or Service(settings)
    progress = progress or service
    app = Flask("tam_backend", static_folder=None)
    app.url_map.merge_slashes = False  # an address is right or not found; nobody is sent on
    app.config["MAX_CONTENT_LENGTH"] = settings.max_request_mb * 1_000_000
    app.extensions["tam"] = service
    count_requests(app, service.metrics)
    Guard(app, settings)
    frames = FrameServer(service.library, settings, progress, service.metrics.lookup("pictures"))
    app.register_blueprint(frames_blueprint(frames, service.library, service.links))
    app.register_blueprint(openapi_blueprint())
    app.register_blueprint(removals_blueprint(service.desk, service.removals))
    app.register_blueprint(status_blueprint(lambda: service.status(), progress))
    app.register_blueprint(metrics_blueprint(service.metrics))

    def base_url() -> str:
        return settings.public_url or request.root_url.rstrip("/")

    @app.get("/")
    @app.get("/health")
    def health() -> Response:
        engine = service.engine
        return jsonify(
            status="UP", model_class=model_class.__name__, engine=engine.name, engine_version=engine.version,
            ready=not service.obstacles(),
        )  # fmt: skip

    @app.get("/health/ready")
    def ready() -> tuple[Response, int]:
        obstacles = service.obstacles()
        return jsonify(ready=not obstacles, obstacles=obstacles), 503 if obstacles else 200

    @app.post("/setup")
    def setup() -> Response:
        body = json_body()
        hostname, token = _text(body, "hostname"), _text(body, "access_token")
        return jsonify(service.setup(_required(body, "schema"), hostname, token, base_url()))

    doors = threading.Semaphore(MAX_PREDICTS)

    @app.post("/predict")
    def predict() -> Response | tuple[Response, int, dict[str, str]]:
        if not doors.acquire(blocking=False):
            # Label Studio gives /health one second: some threads must be left for that.
            error = f"busy, position {MAX_PREDICTS + 1}: this server answers {MAX_PREDICTS} requests already"
            log.warning("%s", error)
            return jsonify(error=error), 503, {"Retry-After": "5"}
        try:
            with log_about(request=secrets.token_hex(4)):
                return _predicted()
        finally:
            doors.release()

    def _predicted() -> Response:
        body = json_body()
        tasks = body.get("tasks")
        if not isinstance(tasks, list):
            raise BadInput("the request has no list of tasks")
        params = body.get("params")
        context = params.get("context") if isinstance(params, dict) else None
        if context is not None and not isinstance(context, dict):
            raise BadInput("params.context must be an object or null")
        model = model_class(label_config=_required(body, "label_config"), service=service, base_url=base_url())
        results = model.predict(tasks, context=context, project=_text(body, "project"))
        return jsonify(results=results, model_version=service.model_version)

    @app.post("/webhook")
    def webhook() -> Response:
        service.webhook(json_body(), base_url())
        return jsonify(status="ok")

    @app.route("/versions", methods=["GET", "POST"])
    def versions() -> Response:
        return jsonify(message="Success", versions=[service.model_version])

    @app.errorhandler(TamError)
    def expected(error: TamError) -> tuple[Response, int]:
        code = 400 if isinstance(error, BadInput) else 502
        log.warning("%s %s: %s", request.method, request.path, error)
        return jsonify(error=str(error)), code

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> tuple[Response, int]:
        return jsonify(error=error.description or error.name), error.code or 500

    @app.errorhandler(RecursionError)
    def too_deep(error: RecursionError) -> tuple[Response, int]:
        return expected(BadInput("the request's JSON is nested too deeply"))

    @app.errorhandler(Exception)
    def fault(error: Exception) -> tuple[Response, int]:
        log.exception("%s %s", request.method, request.path)
        return jsonify(error="the backend failed; its log says why"), 500

    return app


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise BadInput(f"{name} must be a text, not {type(value).__name__}")
    return value


def _required(body: dict[str, Any], name: str) -> str:
    value = _text(body, name)
    if not value:
        raise BadInput(f"the request has no {name}")
    return value
