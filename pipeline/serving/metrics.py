"""What the server counts, for Prometheus; a registry of its own, so that several servers can be in one process."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pipeline.tracking.version_choice import StoredVersion

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
IMAGES = (1, 2, 4, 8, 16, 24, 32)


class Metrics:
    """The figures of one server, under names that begin with `seqpipe_`."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "seqpipe_requests", "Requests that were answered.", ["route", "status"], registry=self._registry
        )
        self._request_seconds = Histogram(
            "seqpipe_request_seconds",
            "From the head of a request to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._batch_images = Histogram(
            "seqpipe_batch_images", "Images in a batch.", buckets=IMAGES, registry=self._registry
        )
        self._batch_seconds = Histogram(
            "seqpipe_batch_seconds", "The model's time for a batch.", buckets=SECONDS, registry=self._registry
        )
        self._model = Gauge(
            "seqpipe_model", "The model that is served: 1.", ["name", "version", "run"], registry=self._registry
        )
        self._reloads = Counter(
            "seqpipe_model_reloads", "New champions, by what came of them.", ["outcome"], registry=self._registry
        )
        self._queued = Gauge("seqpipe_queued_images", "Images that wait for a batch.", registry=self._registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def batch(self, images: int, seconds: float) -> None:
        """A batch was computed."""
        self._batch_images.observe(images)
        self._batch_seconds.observe(seconds)

    def queued(self, images: Callable[[], int]) -> None:
        """Ask this, whenever somebody looks, how many images wait."""
        self._queued.set_function(images)

    def model(self, version: StoredVersion) -> None:
        """Another model is served from now on."""
        self._model.clear()
        self._model.labels(version.name, version.number, version.run_id or "").set(1)

    def reload(self, outcome: str) -> None:
        """A new champion was `taken` or `refused`."""
        self._reloads.labels(outcome).inc()

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
