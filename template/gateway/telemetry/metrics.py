"""Prometheus metrics. Labels name routes, models and outcomes; never users."""

import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

requests = Counter("http_requests", "Requests answered", ["method", "route", "status"])
request_seconds = Histogram("http_request_seconds", "Time to answer", ["route"], buckets=SECONDS)
attempts = Counter("attempts", "Calls of providers, by how they ended", ["model", "result"])
generations = Counter("generations", "Generations ended", ["model", "outcome"])
generation_seconds = Histogram(
    "generation_seconds", "Time from admission to the end", ["model"], buckets=SECONDS
)
# The directions cached_input and cache_write are parts of input.
tokens = Counter("tokens", "Tokens used", ["model", "direction"])
outputs = Counter("outputs", "Outputs that are billed by the piece", ["model"])
cost = Counter("cost_nano_usd", "Settled cost in nano-dollars", ["model"])
refusals = Counter("limit_refusals", "Requests refused by a limit", ["limit"])
alerts = Counter("alerts", "Alerts to the owner", ["kind"])


def expose() -> tuple[bytes, str]:
    """All metrics and their content type. With several worker processes, those of all."""
    registry: CollectorRegistry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST
