"""The log: lines of JSON with request ids, and nothing of a user."""

import json
import logging

import pytest
from starlette.testclient import TestClient

from palate.serve.logs import LOGGER, JsonLines


def test_a_request_is_one_line_that_names_nobody(
    web: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    body = {
        "model": "palate",
        "messages": [{"role": "user", "content": "my secret question"}],
        "max_tokens": 2,
        "palate": {"user": "secret-user"},
    }
    with caplog.at_level(logging.INFO, logger=LOGGER.name):
        response = web.post(
            "/v1/chat/completions",
            json=body,
            headers={"x-request-id": "mine-1", "authorization": "Bearer pk_secret_key"},
        )
        web.get("/v1/users/secret-user?x=secret-query")
        web.get("/secret-path")
    assert response.headers["x-request-id"] == "mine-1"
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
    assert [line["route"] for line in lines if line["event"] == "request"][:2] == [
        "/v1/chat/completions",
        "/v1/users/{user}",
    ]
    assert lines[0]["request_id"] == "mine-1"
    assert lines[0]["status"] == 200
    assert "secret" not in json.dumps(lines)


def test_a_strange_request_id_is_replaced(web: TestClient) -> None:
    found = web.get("/health", headers={"x-request-id": "a b\tc"}).headers["x-request-id"]
    assert len(found) == 32


def test_an_error_is_logged_by_kind_and_place_not_by_message() -> None:
    try:
        raise ValueError("what a user wrote")  # noqa: TRY301  the traceback is what is tested
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "failed", None, None)
        record.exc_info = (type(error), error, error.__traceback__)
    line = json.loads(JsonLines().format(record))
    assert line["error"] == "ValueError"
    assert "test_logs.py" in line["place"]
    assert "user" not in json.dumps(line)
