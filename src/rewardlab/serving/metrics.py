"""What the server counts, for Prometheus: requests, items, tokens computed and saved, the queue, batches, scores.

One registry per application, never the library's global one, so that several can live in one process. Labels are few
and bounded: routes are the application's own, never what a stranger asked for. No text and no id is kept.
"""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from rewardlab.serving.distributions import Distributions
from rewardlab.serving.items import Answer, ItemRefusal, ModelInfo
from rewardlab.serving.messages import Work

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""Content type of :meth:`Metrics.render`."""

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
FILLS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
DISAGREEMENTS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10)
SCORES = (-20, -15, -10, -7, -5, -4, -3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 4, 5, 7, 10, 15, 20)


class Metrics:
    """The counters of one application.

    Attributes:
        distributions: Scores, lengths and disagreements in bins fine enough to find drift.
    """

    def __init__(self) -> None:
        self.distributions = Distributions()
        self._registry = own = CollectorRegistry()
        self._requests = Counter("rewardlab_requests", "Requests answered.", ["route", "status"], registry=own)
        self._shed = Counter(
            "rewardlab_requests_shed", "Requests refused for overload before they were read.", registry=own
        )
        self._seconds = Histogram(
            "rewardlab_request_seconds",
            "From a request's head to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=own,
        )
        self._items = Counter(
            "rewardlab_items", "Items answered: scored, or why they have no score.", ["result"], registry=own
        )
        self._unlike = Counter(
            "rewardlab_items_unlike_template",
            "Rendered texts scored that do not begin as the model's chat template does.",
            registry=own,
        )
        self._given = Counter("rewardlab_tokens_given", "Tokens of all sequences scored.", registry=own)
        self._computed = Counter("rewardlab_tokens_computed", "Tokens that went through the model.", registry=own)
        self._saved = Counter(
            "rewardlab_tokens_saved", "Tokens that did not: shared prefixes are computed once.", registry=own
        )
        self._queue = Gauge("rewardlab_queue_items", "Items that wait.", registry=own)
        self._batch_items = Histogram("rewardlab_batch_items", "Items of a batch.", buckets=ITEMS, registry=own)
        self._batch_fill = Histogram(
            "rewardlab_batch_fill", "Estimated tokens of a batch / token budget.", buckets=FILLS, registry=own
        )
        self._batch_seconds = Histogram(
            "rewardlab_batch_seconds", "A batch in the worker, from ids to scores.", buckets=SECONDS, registry=own
        )
        self._scores = Histogram("rewardlab_scores", "Raw scores.", buckets=SCORES, registry=own)
        self._tokens = Histogram("rewardlab_item_tokens", "Tokens of a sequence.", buckets=TOKENS, registry=own)
        self._disagreements = Histogram(
            "rewardlab_disagreement",
            "Standard deviation of an ensemble's members' scores.",
            buckets=DISAGREEMENTS,
            registry=own,
        )
        self._restarts = Counter(
            "rewardlab_worker_restarts", "Workers started again, and why.", ["reason"], registry=own
        )
        self._model = Gauge(
            "rewardlab_model_info",
            "The model in use: always 1.",
            ["name", "fingerprint", "contract_sha256", "kind", "dtype", "device", "layout"],
            registry=own,
        )

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered.

        Args:
            route: One of the application's routes, or one word for all others.
            status: HTTP status.
            seconds: What it took.
        """
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def shed(self) -> None:
        """A request was refused before it was read."""
        self._shed.inc()

    def scored(self, answer: Answer) -> None:
        """The items of a request were answered.

        Args:
            answer: Their results.
        """
        self.distributions.scored(answer)
        for result in answer.results:
            if isinstance(result, ItemRefusal):
                self._items.labels(result.kind).inc()
            else:
                self._items.labels("scored").inc()
                self._scores.observe(result.score)
                self._tokens.observe(result.num_tokens)
                if result.disagreement is not None:
                    self._disagreements.observe(result.disagreement)
                self._unlike.inc(result.unlike_template)

    def batch(self, num_items: int, fill: float, work: Work) -> None:
        """A batch came back from the worker.

        Args:
            num_items: Its items.
            fill: Its estimated tokens / the token budget.
            work: What it cost.
        """
        self._batch_items.observe(num_items)
        self._batch_fill.observe(fill)
        self._batch_seconds.observe(work.seconds)
        self._given.inc(work.tokens_given)
        self._computed.inc(work.tokens_computed)
        # Never below 0: a counter must not fall, and padding may cost more than sharing saves.
        self._saved.inc(max(0, work.tokens_given - work.tokens_computed))

    def waiting(self, items: int) -> None:
        """So many items wait now."""
        self._queue.set(items)

    def worker_restarted(self, reason: str) -> None:
        """The worker was started again.

        Args:
            reason: "died", "stalled" or "load_failed".
        """
        self._restarts.labels(reason).inc()

    def model(self, info: ModelInfo) -> None:
        """This model answers from now on.

        Args:
            info: The model.
        """
        self.distributions.model(info)
        self._model.clear()
        self._model.labels(
            info.name,
            info.fingerprint,
            info.contract_sha256 or "",
            info.kind,
            info.dtype,
            info.device,
            info.layout,
        ).set(1)

    def render(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
