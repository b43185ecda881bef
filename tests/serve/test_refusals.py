"""What is refused: each with a clean status, an error object and a request id, never a 500."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

CHAT = "/v1/chat/completions"
TALK = {"model": "palate", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}


def refused(response: Any, status: int, code: str | None = None) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["x-request-id"]
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith(".")
    if code is not None:
        assert error["code"] == code
    return error


def test_malformed_json_is_refused(web: TestClient) -> None:
    headers = {"content-type": "application/json"}
    for body in ("{", '{"model": ', "\x00", '"text"', "[]", "", "nul"):
        refused(web.post(CHAT, content=body, headers=headers), 400)


def test_tools_that_are_nested_too_deeply_are_refused(web: TestClient) -> None:
    nested = '{"a": ' * 600 + "1" + "}" * 600
    tool = f'{{"type": "function", "function": {{"name": "f", "parameters": {nested}}}}}'
    body = json.dumps(TALK)[:-1] + f', "tools": [{tool}]}}'
    refused(web.post(CHAT, content=body, headers={"content-type": "application/json"}), 400)


def test_bytes_that_are_not_utf8_are_refused(web: TestClient) -> None:
    headers = {"content-type": "application/json"}
    refused(web.post(CHAT, content=b'{"model": "\xff\xfe"}', headers=headers), 400)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused_wherever_they_stand(
    web: TestClient, number: str
) -> None:
    headers = {"content-type": "application/json"}
    for palate in (
        f'{{"preference": {{"kind": {number}}}}}',
        f'{{"coefficients": {{"kind": {number}}}}}',
        f'{{"strength": {number}}}',
    ):
        body = json.dumps(TALK)[:-1] + f', "palate": {palate}}}'
        refused(web.post(CHAT, content=body, headers=headers), 400)
    body = json.dumps(TALK)[:-1] + f', "temperature": {number}}}'
    refused(web.post(CHAT, content=body, headers=headers), 400)
    body = f'{{"preferences": [{{"kind": {number}}}]}}'
    refused(web.post("/v1/regret", content=body, headers=headers), 400)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"palate": {"taste": 1}}, "palate.taste"),
        ({"tools": []}, "tools"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"stop": ["a", "b", "c", "d", "e"]}, None),
        ({"max_tokens": 65}, "max_tokens"),
        ({"seed": 2**64}, "seed"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "messages.0.content.0.type",
        ),
        ({"top_logprobs": 2}, None),
        ({"stream_options": {"include_usage": True}}, None),
        ({"palate": {"coefficients": {"kind": 21.0}}}, "palate.coefficients.kind"),
        ({"palate": {"preference": {"kind": 0.4}}}, None),
        ({"palate": {"preference": {"kind": -0.5, "short": 1.5}}}, "palate.preference.kind"),
        ({"palate": {"preference": {"colour": 1.0}}}, None),
        ({"palate": {"coefficients": {"nobody": 1.0}}}, None),
        ({"palate": {"method": "soup"}}, None),
        ({"palate": {"method": "best"}}, "palate.method"),
        ({"palate": {"way": "soup"}}, "palate.way"),
        ({"palate": {"person": "ana"}}, "palate.person"),
        ({"palate": {"instruction": "x" * 2001}}, "palate.instruction"),
        ({"palate": {"instruction": 5}}, "palate.instruction"),
        ({"palate": {"n_candidates": 1.5}}, "palate.n_candidates"),
        ({"palate": {"max_passes": 0.5}}, None),
    ],
)
def test_a_value_that_breaks_a_rule_is_named(
    web: TestClient, change: dict[str, Any], param: str | None
) -> None:
    error = refused(web.post(CHAT, json={**TALK, **change}), 400)
    assert error["type"] == "invalid_request_error"
    if param is not None:
        assert error["param"] == param


STRANGE = (
    "a\x00b",
    "a\nb",
    "a\x7fb",
    "a\u202eb",
    "x" * 201,
    " ",
)


@pytest.mark.parametrize("name", STRANGE)
def test_strange_names_of_users_are_refused_everywhere(web: TestClient, name: str) -> None:
    refused(web.post("/v1/users", json={"user": name}), 400)
    refused(web.post(CHAT, json={**TALK, "palate": {"user": name}}), 400)
    question = {"user": name, "messages": TALK["messages"]}
    refused(web.post("/v1/questions", json=question), 400)
    for rest in ("", "/export"):
        path = quote(name, safe="").replace(".", "%2E")  # else the client itself walks up
        response = web.get(f"/v1/users/{path}{rest}")
        assert response.status_code in (400, 404), response.text
        refused(response, response.status_code)
    refused(
        web.post("/v1/feedback", json={"response": name, "kind": "thumbs", "thumbs": "up"}), 400
    )
    assert web.get("/v1/users").json()["users"] == []


def test_bodies_that_are_too_large_are_refused_with_and_without_a_length(web: TestClient) -> None:
    headers = {"content-type": "application/json"}
    large = json.dumps({**TALK, "user": "x" * 300_000})
    refused(web.post(CHAT, content=large, headers=headers), 413, "too_large")

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 10_000

    refused(web.post(CHAT, content=pieces(), headers=headers), 413, "too_large")


def test_bodies_of_another_kind_are_refused(web: TestClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        body, headers = json.dumps(TALK), {"content-type": kind}
        refused(web.post(CHAT, content=body, headers=headers), 415, "not_json")


def test_unknown_addresses_and_methods_are_refused(web: TestClient) -> None:
    refused(web.get("/v1/nothing"), 404, "not_found")
    refused(web.get("/../../etc/passwd"), 404)
    refused(web.get("/%2e%2e/%2e%2e/etc/passwd"), 404)
    refused(web.get("/..%2f..%2fsettings.py"), 404)
    refused(web.delete(CHAT), 405, "method_not_allowed")
    refused(web.get(CHAT), 405)


def test_without_keys_only_names_of_this_machine_are_answered(web: TestClient) -> None:
    refused(web.get("/v1/library", headers={"host": "evil.example"}), 403, "foreign_host")
    for host in ("localhost:8000", "127.0.0.1", "[::1]:9"):
        assert web.get("/v1/library", headers={"host": host}).status_code == 200


def test_a_prompt_that_is_too_long_is_refused(web: TestClient) -> None:
    long = [{"role": "user", "content": "x" * 151}]
    refused(web.post(CHAT, json={**TALK, "messages": long}), 400, "context_length_exceeded")
    huge = [{"role": "user", "content": "x" * 10_000}]
    refused(web.post(CHAT, json={**TALK, "messages": huge}), 400, "context_length_exceeded")


def test_coefficients_at_the_limit_are_answered_or_refused_and_hurt_nobody_else(
    web: TestClient,
) -> None:
    wild = {"coefficients": {"kind": 20.0, "short": -20.0, "plain": 20.0}}
    for method in ("soup", "output-soup"):
        response = web.post(CHAT, json={**TALK, "palate": {**wild, "method": method}})
        assert response.status_code in (200, 400), response.text
    assert web.post(CHAT, json=TALK).status_code == 200


def test_an_answer_that_the_model_cannot_hold_is_refused(
    client_of: Callable[..., TestClient],
) -> None:
    web = client_of(max_tokens=240)
    talk = {**TALK, "messages": [{"role": "user", "content": "x" * 60}]}
    found = web.post(CHAT, json={**talk, "max_tokens": 240})
    refused(found, 400, "context_length_exceeded")
    assert "the model's context length is 256" in found.json()["error"]["message"]
    assert web.post(CHAT, json={**talk, "max_tokens": 20}).status_code == 200
