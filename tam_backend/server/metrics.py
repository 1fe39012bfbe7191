"""GET /metrics: the figures of this process for Prometheus; and the counting of requests."""

from __future__ import annotations

import time

from flask import Blueprint, Flask, Response, g, request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from tam_backend.metrics import Metrics

#: Others are counted together: a caller may invent as many as they like.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def count_requests(app: Flask, metrics: Metrics) -> None:
    """Count and time every request that reaches the application, also those that are refused.

    To be called before anything else is done before a request, so that all of that counts.
    """

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def end(response: Response) -> Response:
        # The rule, never the address: that may hold a secret or a signature, and there is no end of addresses.
        route = request.url_rule.rule if request.url_rule is not None else "none"
        method = request.method if request.method in _METHODS else "other"
        metrics.requests.labels(method, route, response.status_code).inc()
        metrics.request_seconds.labels(route).observe(time.perf_counter() - g.began)
        return response


def metrics_blueprint(metrics: Metrics) -> Blueprint:
    """The route. Like all others but frames it is open to those only who may call."""
    blueprint = Blueprint("metrics", __name__)

    @blueprint.get("/metrics")
    def figures() -> Response:
        return Response(generate_latest(metrics.registry), content_type=CONTENT_TYPE_LATEST)

    return blueprint
