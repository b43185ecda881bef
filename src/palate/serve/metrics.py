"""Series for Prometheus. No label holds anything of a user or of a tenant."""

import prometheus_client as prometheus

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class TenantMetrics:
    """Series of the requests of one tenant, in a registry of its own."""

    def __init__(self) -> None:
        """Start at zero."""
        self.registry = prometheus.CollectorRegistry()
        self.requests = self._counter("requests", "Requests by route and status.", "route status")
        self.answers = self._counter("answers", "Answers by method.", "method")
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts.")
        self.cached_tokens = self._counter("prompt_tokens_cached", "Of them, in the prefix cache.")
        self.completion_tokens = self._counter("completion_tokens", "Sampled tokens.")
        self.feedback = self._counter("feedback", "Items of feedback stored, by kind.", "kind")
        self.beliefs = self._counter("beliefs_used", "Answers by use of a belief.", "learning")
        self.first_token = self._histogram(
            "first_token_seconds", "From request to first token.", SECONDS
        )
        self.per_token = self._histogram(
            "token_seconds", "Mean time between tokens of an answer.", TOKEN_SECONDS
        )
        self.seconds = self._histogram("answer_seconds", "From request to last token.", SECONDS)

    def _counter(self, name: str, text: str, labels: str = "") -> prometheus.Counter:
        return prometheus.Counter(f"palate_{name}", text, labels.split(), registry=self.registry)

    def _gauge(self, name: str, text: str) -> prometheus.Gauge:
        return prometheus.Gauge(f"palate_{name}", text, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> prometheus.Histogram:
        return prometheus.Histogram(f"palate_{name}", text, buckets=buckets, registry=self.registry)


class Metrics(TenantMetrics):
    """Series of the whole server."""

    def __init__(self) -> None:
        """Start at zero."""
        super().__init__()
        prometheus.ProcessCollector(registry=self.registry)
        prometheus.PlatformCollector(registry=self.registry)
        prometheus.GCCollector(registry=self.registry)
        self.refused = self._counter("refused", "Requests refused by reason.", "reason")
        self.cancelled = self._counter("cancelled", "Answers aborted: disconnect or deadline.")
        self.waiting = self._gauge("requests_waiting", "Answers that wait for their first token.")
        self.running = self._gauge("requests_running", "Answers in the running batch.")
        self.rows = self._gauge("batch_rows", "Rows of the running batch.")
        self.step = self._histogram("step_seconds", "One step of the engine.", TOKEN_SECONDS)
