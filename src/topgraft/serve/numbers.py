"""What Prometheus reads: requests by status, photos by answer, seconds a photo, and how many wait."""

from __future__ import annotations

import os
from collections.abc import Sequence

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Where the client library puts the numbers of several workers together."""
STEPS_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Numbers:
    """The numbers of one application; two in one process do not meet."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "topgraft_requests", "Requests by route and status.", ("route", "status"), registry=self._registry
        )
        self._photos = Counter("topgraft_photos", "Photos by answer.", ("answer",), registry=self._registry)
        self.seconds = Histogram(
            "topgraft_photo_seconds",
            "Seconds to decode, fit and answer one photo.",
            buckets=STEPS_S,
            registry=self._registry,
        )
        self.waiting = Gauge(
            "topgraft_waiting_photos",
            "Photos taken and not answered yet.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        for answer in (*classes, "unknown", "unsure", "unreadable"):
            self._photos.labels(answer)

    def answer(self, answer: str) -> None:
        """Count a photo."""
        self._photos.labels(answer).inc()

    def page(self) -> tuple[bytes, str]:
        """Return the numbers in Prometheus's text form, and its media type."""
        registry = self._registry
        if FOLDER in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry), CONTENT_TYPE_LATEST
