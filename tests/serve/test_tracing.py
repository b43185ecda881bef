"""OpenTelemetry: off unless asked for, and then a span a request with nobody's name in it."""

from collections.abc import Callable

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient


@pytest.fixture(scope="module")
def provider() -> TracerProvider:
    """The global provider, of which a process has one."""
    found = TracerProvider()
    trace.set_tracer_provider(found)
    return found


@pytest.fixture
def spans(provider: TracerProvider) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def test_a_request_is_a_span_that_names_its_route_and_nobody(
    spans: InMemorySpanExporter, client_of: Callable[..., TestClient]
) -> None:
    client = client_of(is_traced=True)
    assert client.get("/v1/users/ada-lovelace?key=ada-lovelace").status_code == 404
    (span,) = spans.get_finished_spans()
    assert span.name == "GET /v1/users/{user}"
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 404
    assert "ada" not in span.to_json()


def test_without_the_setting_nothing_is_sent(
    spans: InMemorySpanExporter, client_of: Callable[..., TestClient]
) -> None:
    assert client_of().get("/health").status_code == 200
    assert spans.get_finished_spans() == ()
