"""What Prometheus is told of the server."""

from __future__ import annotations

from typing import final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64)


@final
class Metrics:
    """The figures of one server, in a registry of its own.

    Attributes:
        requests: by route and status.
        seconds: from a request's head to the end of its answer, by route.
        queue: requests that are worked at or wait.
        batches: sizes of the batches that were answered together.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "mmssl_requests", "Requests by route and status.", ["route", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "mmssl_request_seconds", "Seconds of a request.", ["route"], buckets=SECONDS, registry=self._registry
        )
        self.queue = Gauge("mmssl_queue_depth", "Requests that are worked at or wait.", registry=self._registry)
        self.batches = Histogram(
            "mmssl_batch_size", "Queries answered together.", buckets=SIZES, registry=self._registry
        )
        self._items = Gauge("mmssl_items", "Items of the index.", ["modality"], registry=self._registry)

    def text(self, counts: dict[str, int]) -> bytes:
        """Return everything in Prometheus' text format.

        Args:
            counts: of the items, by modality.
        """
        self._items.clear()
        for modality, count in counts.items():
            self._items.labels(modality).set(count)
        return generate_latest(self._registry)
