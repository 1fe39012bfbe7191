"""Routes for taking objects out of the videos of tasks: ask for it, see how far it is, fetch the video, forget it."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, send_file
from werkzeug.exceptions import NotFound

from tam_backend.labelstudio.removing import RemovalDesk
from tam_backend.server.bodies import json_body
from tam_backend.sessions.removals import Removal, Removals


def removals_blueprint(desk: RemovalDesk, removals: Removals) -> Blueprint:
    """The routes below /removals. Like all others but frames they are open to those only who may call."""
    blueprint = Blueprint("removals", __name__)

    @blueprint.post("/removals")
    def ask() -> tuple[Response, int]:
        return jsonify(_fields(removals.ask(desk.accept(json_body())))), 202

    @blueprint.get("/removals/<number>")
    def look(number: str) -> Response:
        removal = removals.get(number)
        if removal is None:
            raise NotFound("there is no such removal, or no more: ask for it again")
        return jsonify(_fields(removal))

    @blueprint.get("/removals/<number>/video.mp4")
    def fetch(number: str) -> Response:
        path = removals.result(number)
        if path is None:
            raise NotFound("there is no such video, or not yet, or no more")
        return send_file(path.resolve(), mimetype="video/mp4", conditional=True)

    @blueprint.delete("/removals/<number>")
    def forget(number: str) -> Response:
        if not removals.drop(number):
            raise NotFound("there is no such removal, or no more")
        return jsonify(status="ok")

    return blueprint


def _fields(removal: Removal) -> dict[str, Any]:
    return {
        "id": removal.id, "task": removal.task, "state": removal.state, "steps": removal.steps, "total": removal.total,
        "error": removal.error, "report": removal.report,
    }  # fmt: skip
