"""GET /openapi.json: what this server's routes take and answer, for people and for programs that test it."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from tam_backend import __version__

Json = dict[str, Any]

_OBJECT: Json = {"type": "object"}
_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_COUNT_OR_NOTHING: Json = {"type": ["integer", "null"], "minimum": 0}
_TEXT_OR_NOTHING: Json = {"type": ["string", "null"]}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _object(required: Json, optional: Json | None = None) -> Json:
    return {"type": "object", "properties": required | (optional or {}), "required": sorted(required)}


_REGION = _object(
    {
        "id": _TEXT | {"minLength": 1, "examples": ["ycOWHJr3ww"]},
        "type": {"enum": ["keypointlabels", "rectanglelabels", "brushlabels", "bitmasklabels"]},
        "from_name": _TEXT | {"description": "name of the tag it was made with", "examples": ["point", "box", "mask"]},
        "to_name": _TEXT | {"description": "name of the image tag", "examples": ["image"]},
        "value": _object(
            {},
            {
                "x": {"type": "number", "description": "percent of the width"},
                "y": {"type": "number", "description": "percent of the height"},
                "width": {"type": "number"},
                "height": {"type": "number"},
                "keypointlabels": _list(_TEXT),
                "rectanglelabels": _list(_TEXT),
                "brushlabels": _list(_TEXT),
                "format": _TEXT,
                "rle": _list({"type": "integer"}),
                "imageDataURL": _TEXT,
            },
        ),
    },
    {
        "item_index": _COUNT | {"description": "which frame of the task, from 0"},
        "original_width": {"type": "integer", "minimum": 1},
        "original_height": {"type": "integer", "minimum": 1},
        "image_rotation": {"type": "number"},
        "origin": _TEXT,
        "is_positive": {"type": ["boolean", "null"], "description": "on new points only"},
        "score": {"type": "number"},
        "meta": _OBJECT,
    },
)
_WORK = _object({"result": _list(_ref("Region"))}, {"id": {"type": "integer"}, "updated_at": _TEXT})
_TASK = _object(
    {"data": _object({}, {"video": _TEXT | {"examples": ["/data/upload/1/a.mp4"]}, "frames": _list(_TEXT)})},
    {
        "id": {"type": "integer"},
        "project": {"type": "integer"},
        "drafts": _list(_ref("Work")),
        "annotations": _list(_ref("Work")),
        "predictions": _list(_ref("Work")),
    },
)
_EVENTS = ["TASKS_CREATED", "TASKS_DELETED", "PROJECT_UPDATED", "ANNOTATION_CREATED", "ANNOTATION_UPDATED"]
_SCHEMAS: Json = {
    "Error": _object({"error": _TEXT | {"description": "what is wrong and what would be right, for people"}}),
    "Region": _REGION,
    "Work": _WORK,
    "Task": _TASK,
    "Health": _object(
        {
            "status": {"const": "UP"}, "model_class": _TEXT, "engine": _TEXT, "engine_version": _TEXT,
            "ready": {"type": "boolean", "description": "whether it should get work"},
        },
    ),
    "Ready": _object({"ready": {"type": "boolean"}, "obstacles": _list(_TEXT)}),
    "Setup": _object(
        {"schema": _TEXT | {"minLength": 1, "description": "the labeling configuration, XML"}},
        {"project": _TEXT, "hostname": _TEXT_OR_NOTHING, "access_token": _TEXT_OR_NOTHING},
    ),
    "Predict": _object(
        {"tasks": _list(_ref("Task")), "label_config": _TEXT | {"minLength": 1}},
        {
            "project": _TEXT_OR_NOTHING | {"examples": ["1.1795364937"]},
            "params": _object(
                {},
                {
                    "context": {
                        "description": "of a click or box; null for a batch",
                        "oneOf": [{"type": "null"}, _object({"result": _list(_ref("Region"))})],
                    }
                },
            ),
        },
    ),
    "Prediction": _object({"result": _list(_ref("Region")), "score": {"type": "number"}, "model_version": _TEXT}),
    "Predictions": _object(
        {
            "results": _list({"oneOf": [_ref("Prediction"), {"type": "array", "maxItems": 0}]}),
            "model_version": _TEXT,
        }
    ),
    "Event": _object(
        {"action": _TEXT | {"examples": _EVENTS}},
        {
            "project": _object({}, {"id": {"type": "integer"}, "label_config": _TEXT}),
            "tasks": _list(_ref("Task")),
            "annotation": _ref("Work"),
        },
    ),
    "AskRemoval": _object(
        {"task": _COUNT},
        {
            "objects": {"type": ["array", "null"], "items": _TEXT, "description": "labels; null: all"},
            "start": _COUNT_OR_NOTHING | {"description": "first frame of the video"},
            "end": _COUNT_OR_NOTHING,
            "dilate": _COUNT_OR_NOTHING | {"maximum": 200, "description": "pixels by which masks grow"},
            "engine": {"enum": ["embedded", "e2fgvi", None]},
            "keep_audio": {"type": ["boolean", "null"]},
        },
    ),
    "Removal": _object(
        {
            "id": _TEXT, "task": _COUNT, "steps": _COUNT, "total": _COUNT, "error": _TEXT,
            "state": {"enum": ["waiting", "running", "done", "failed"]}, "report": {"type": ["object", "null"]},
        }
    ),
    "Status": _object(
        {
            "status": {"const": "UP"}, "version": _TEXT, "engine": _TEXT, "model_version": _TEXT,
            "uptime_seconds": {"type": "number"}, "tracking_requests": _COUNT, "background_jobs": _COUNT,
            "tasks_getting_frames": _list(_OBJECT), "jobs": _list(_OBJECT), "obstacles": _list(_TEXT),
            "devices": _list(_TEXT), "versions": _OBJECT,
        }
    ),
}  # fmt: skip

_ERRORS = {
    "400": "the request cannot be used",
    "401": "user name and password are wrong or missing (TAM_BASIC_AUTH_USER)",
    "404": "no such address; also everything that is not below TAM_SECRET_PATH",
    "405": "not with this method",
    "413": "the body is larger than TAM_MAX_REQUEST_MB",
    "503": "busy: the same again after a pause",
    "502": "Label Studio, or the place of a video, did not play along",
}


def _content(schema: str) -> Json:
    return {"application/json": {"schema": _ref(schema)}}


def _operation(summary: str, answer: Json, body: str = "", errors: str = "401 404 405") -> Json:
    """answer: the content of a 200. body: schema of the request's."""
    codes = errors.split() + (["400", "413", "502"] if body else [])
    responses = {"200": {"description": "done", "content": answer}}
    responses |= {code: {"description": _ERRORS[code], "content": _content("Error")} for code in codes}
    operation: Json = {"summary": summary, "responses": responses, "security": [{}, {"basic": []}]}
    if body:
        operation["requestBody"] = {"required": True, "content": _content(body)}
    return operation


def describe(base: str = ".") -> Json:
    """The description, OpenAPI 3.1. base: where the addresses but those of frames begin."""
    free = {"type": "object", "properties": {"message": _TEXT, "versions": _list(_TEXT)}}
    versions = _operation("the version of the model", {"application/json": {"schema": free}})
    anything: Json = {"requestBody": {"content": {"application/json": {"schema": {}}}}}
    health = _operation("whether the server is up", _content("Health"))
    ready = _operation("whether the server should get work", _content("Ready"))
    ready["responses"]["503"] = {"description": "it should not, and why", "content": _content("Ready")}
    status = _content("Status")
    frame = _operation("one frame of a video", {"image/jpeg": {"schema": _TEXT}}, errors="404 405")
    frame["responses"] |= {
        "304": {"description": "the browser has it"},
        "403": {"description": "the address is not signed, or its time is over", "content": _content("Error")},
    }
    frame["security"] = []
    asked = _operation("take objects out of a task's video", _content("Removal"), "AskRemoval")
    asked["responses"]["202"] = asked["responses"].pop("200")
    identity: Json = _TEXT | {"pattern": "^[0-9a-f]{32}$"}
    removal: Json = {"parameters": [{"name": "number", "in": "path", "required": True, "schema": identity}]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Track anything: ML backend for Label Studio", "version": __version__},
        "servers": [{"url": base}],
        "paths": {
            "/": {"get": health},
            "/health": {"get": health},
            "/health/ready": {"get": ready},
            "/setup": {"post": _operation("a project connects", {"application/json": {"schema": _OBJECT}}, "Setup")},
            "/predict": {
                "post": _operation(
                    "masks, and frames of tasks", _content("Predictions"), "Predict", errors="401 404 405 503"
                )
            },
            "/webhook": {"post": _operation("an event", {"application/json": {"schema": _OBJECT}}, "Event")},
            "/versions": {"get": versions, "post": versions | anything},
            "/status": {"get": _operation("work in the background", {"text/html": {"schema": _TEXT}} | status)},
            "/status.json": {"get": _operation("the same", status)},
            "/removals": {"post": asked},
            "/removals/{number}": {
                "get": _operation("how far a removal is", _content("Removal")) | removal,
                "delete": _operation("forget one, or stop it", {"application/json": {"schema": _OBJECT}}) | removal,
            },
            "/removals/{number}/video.mp4": {
                "get": _operation("the finished video", {"video/mp4": {"schema": _TEXT}}) | removal
            },
            "/metrics": {"get": _operation("figures for Prometheus", {"text/plain": {"schema": _TEXT}})},
            "/openapi.json": {"get": _operation("this description", {"application/json": {"schema": _OBJECT}})},
            "/frames/{video}/{index}.jpg": {
                "servers": [{"url": "/"}],
                "get": frame
                | {
                    "parameters": [
                        {"name": "video", "in": "path", "required": True, "schema": _TEXT},
                        {"name": "index", "in": "path", "required": True, "schema": _COUNT},
                        {"name": "sig", "in": "query", "required": True, "schema": _TEXT},
                        {"name": "exp", "in": "query", "schema": _COUNT},
                    ]
                },
            },
        },
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
        },
    }


def openapi_blueprint() -> Blueprint:
    """The route. Like all others but frames it is open to those only who may call."""
    blueprint = Blueprint("openapi", __name__)

    @blueprint.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(describe())

    return blueprint
