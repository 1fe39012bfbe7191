"""What requests carry."""

from __future__ import annotations

from typing import Any

from flask import request

from tam_backend.errors import BadInput


def json_body() -> dict[str, Any]:
    """The JSON object that the request under way carries. Raises BadInput if it is none."""
    body = request.get_json(force=True, silent=True)
    if not isinstance(body, dict):
        raise BadInput("the request's body must be a JSON object")
    return body
