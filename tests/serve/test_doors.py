"""Who may come in: keys, names of the host, other sites' pages; what every refusal says."""

import json
import logging
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from palate.serve.app import make_app
from palate.serve.auth import is_loopback
from palate.serve.errors import ApiError
from palate.serve.logs import LOGGER
from palate.serve.state import Served
from palate.store.keys import ApiKey, has_keys, issue_key, list_keys, revoke_key

CHAT = "/v1/chat/completions"
TALK = {"model": "palate", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
JSON = {"content-type": "application/json"}


def code(response: Any) -> str:
    return response.json()["error"]["code"]


def test_once_a_key_was_issued_every_request_needs_one_also_when_all_were_revoked(
    make_served: Callable[..., Served],
) -> None:
    served = make_served()
    with TestClient(make_app(served), base_url="http://localhost") as client:
        assert client.get("/v1/models").status_code == 200
        issue_key(served.database)
        until = time.monotonic() + 20  # not only at the next start
        while client.get("/v1/models").status_code == 200 and time.monotonic() < until:
            time.sleep(0.1)
        assert client.get("/v1/models").status_code == 401
        for key in list_keys(served.database):
            revoke_key(served.database, prefix=key.prefix)
        assert has_keys(served.database)
        assert client.get("/v1/models").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:8000"},  # another port is another site
        {"origin": "http://localhost.evil.example"},
        {"origin": "http://["},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/users/ana/reset"),
        ("POST", CHAT),
        ("POST", "/v1/users"),
        ("PATCH", "/v1/users/ana"),
        ("DELETE", "/v1/users/ana"),
        ("POST", "/v1/feedback"),
    ],
)
def test_a_page_of_another_site_changes_nothing(
    web: TestClient, headers: dict[str, str], method: str, path: str
) -> None:
    response = web.request(method, path, headers={**JSON, **headers})
    assert response.status_code == 403
    assert code(response) == "foreign_origin"


@pytest.mark.parametrize(
    "headers",
    [{"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}, {"origin": "http://localhost"}],
)
def test_the_page_of_this_site_and_programs_may(web: TestClient, headers: dict[str, str]) -> None:
    assert web.post(CHAT, json=TALK, headers=headers).status_code == 200


def test_a_post_without_a_body_needs_json_too(web: TestClient) -> None:
    web.post("/v1/users", json={"user": "zoe"})
    assert code(web.post("/v1/users/zoe/reset")) == "not_json"
    assert web.post("/v1/users/zoe/reset", headers=JSON).status_code == 200


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("LOCALHOST", True),
        ("localhost:8000", True),
        ("[::1]", True),
        ("[::1]:8000", True),
        ("127.0.0.1:1", True),
        ("testserver", False),
        ("::1:evil", False),
        ("localhost:evil.example", False),
        ("evil.example", False),
        ("[::1].evil.example", False),
    ],
)
def test_hosts_that_lead_here_only_are_told_from_others(
    web: TestClient, host: str, *, is_local: bool
) -> None:
    status = web.get("/v1/models", headers={"host": host}).status_code
    assert status == (200 if is_local else 403)
    assert not is_loopback("testserver")


def test_an_unexpected_error_has_a_request_id_safe_headers_and_counts_as_500(
    client_of: Callable[..., TestClient], monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of()
    served: Served = client.app.state.served  # type: ignore[attr-defined]

    def fail(*_arguments: object, **_options: object) -> None:
        raise KeyError("what a user wrote")

    monkeypatch.setattr(served.library, "decide", fail)
    with caplog.at_level(logging.INFO, logger=LOGGER.name):
        response = client.post(CHAT, json=TALK, headers={"x-request-id": "mine"})
    assert response.status_code == 500
    assert code(response) == "failed"
    assert response.headers["x-request-id"] == "mine"
    assert response.headers["x-content-type-options"] == "nosniff"
    (line,) = [record for record in caplog.records if record.getMessage() == "request"]
    assert line.status == 500  # type: ignore[attr-defined]
    assert f'route="{CHAT}",status="500"' in client.get("/metrics").text


def test_without_a_key_the_body_is_not_read(guarded: TestClient) -> None:
    response = guarded.post(CHAT, content="{", headers=JSON)
    assert response.status_code == 401


def test_wrong_keys_are_tried_at_a_rate(
    make_served: Callable[..., Served],
) -> None:
    served = make_served(has_keys=True, wrong_keys_per_minute=5)
    seen, new = (issue_key(served.database) for _ in range(2))
    with TestClient(make_app(served), base_url="http://localhost") as client:

        def status(key: str) -> int:
            headers = {"authorization": f"Bearer {key}"}
            return client.get("/v1/models", headers=headers).status_code

        assert status(seen) == 200
        assert [status(f"pk_{k}") for k in range(8)] == [401] * 5 + [429] * 3
        assert status(seen) == 200  # who shares the address and came before goes on
        assert status(new) == 429


@pytest.mark.parametrize(
    "text",
    ['{"model": "palate", "model": "palate"}', '{"a": {"b": 1, "b": 2}}', "[" * 100_000],
)
def test_json_that_says_a_thing_twice_or_never_ends_is_refused(web: TestClient, text: str) -> None:
    response = web.post(CHAT, content=text, headers=JSON)
    assert response.status_code == 400
    assert code(response) == "invalid_json"


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": "3"},
        {"max_tokens": True},
        {"max_tokens": 3.0},
        {"stream": "yes"},
        {"temperature": "1"},
        {"palate": {"explain": 1}},
        {"palate": {"n_candidates": "2"}},
        {"palate": {"preference": {"kind": "1"}}},
    ],
)
def test_a_value_of_another_type_is_refused(web: TestClient, change: dict[str, Any]) -> None:
    response = web.post(CHAT, json={**TALK, **change})
    assert response.status_code == 400
    assert code(response) == "invalid_value"


def test_true_is_no_verdict(web: TestClient) -> None:
    body = {"response": "chatcmpl-" + "0" * 32, "kind": "comparison", "preferred": True}
    assert code(web.post("/v1/feedback", json=body)) == "invalid_value"


def test_a_key_in_the_header_and_another_in_the_body_are_refused(web: TestClient) -> None:
    body = {"response": "chatcmpl-" + "0" * 32, "kind": "thumbs", "thumbs": "up", "key": "a"}
    response = web.post("/v1/feedback", json=body, headers={"idempotency-key": "b"})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "key"


def test_what_a_message_repeats_is_short(web: TestClient) -> None:
    long = "x" * 100_000
    for change in ({long: 1}, {"palate": {"preference": {long: 1.0}}}, {"model": long}):
        assert len(web.post(CHAT, json={**TALK, **change}).text) < 1000


@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"role": "user", "content": "a\x00b"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a\x00b"}]}]},
        {"stop": "\x00"},
        {"palate": {"instruction": "a\x00b"}},
        {"user": "a\x00b"},
    ],
)
@pytest.mark.parametrize("user", [None, "nina"])
def test_nul_is_refused_before_any_work(
    web: TestClient, change: dict[str, Any], user: str | None
) -> None:
    body = {**TALK, **change}
    if user and "user" not in change:
        body["user"] = user
    response = web.post(CHAT, content=json.dumps(body), headers=JSON)
    assert response.status_code == 400
    assert code(response) == "invalid_value"


@pytest.mark.parametrize(
    "name",
    [
        "auth0|5f7c",
        "ana@site.example",
        "a/b",
        "a%2Fb",
        "Ana María",
        "' OR 1=1 --",
        "..",
        "李",
        "x" * 200,
    ],
)
def test_a_users_name_is_any_printable_text(web: TestClient, name: str) -> None:
    path = "/v1/users/" + quote(name, safe="").replace(".", "%2E")  # else the client walks up
    assert web.post("/v1/users", json={"user": name}).status_code == 201
    assert web.get(path).json()["user"] == name
    assert web.get(f"{path}/export").json()["user"] == name
    assert web.delete(path).status_code == 200
    assert web.get(path).status_code == 404


def test_one_name_in_two_forms_of_unicode_is_one_user(web: TestClient) -> None:
    assert web.post("/v1/users", json={"user": "Zoe\u0308"}).json()["user"] == "Zo\u00eb"
    assert web.get("/v1/users/Zoe%CC%88").json()["user"] == "Zo\u00eb"
    assert web.delete("/v1/users/Zo%C3%AB").status_code == 200


@pytest.mark.parametrize(
    "name",
    ["", " ", " a", "a\x00b", "a\nb", "a\u200bb", "a\u202eb", "a\u3164", "\ufeffa", "x" * 201],
)
def test_a_name_that_cannot_be_seen_is_refused(web: TestClient, name: str) -> None:
    response = web.post("/v1/users", json={"user": name})
    assert code(response) == "invalid_value"
    assert "printable" in response.json()["error"]["message"] or name in ("", "x" * 201)


def test_a_body_as_other_clients_send_it_is_answered(web: TestClient) -> None:
    sent_back = {
        "role": "assistant",
        "content": "Hello",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    body = {
        **TALK,
        "messages": [*TALK["messages"], sent_back, {"role": "user", "content": "And?"}],
        **dict.fromkeys(("tools", "tool_choice", "stop", "n", "user", "seed", "functions")),
        "palate": {"user": None, "method": None, "explain": None},
    }
    assert web.post(CHAT, json=body).status_code == 200
    assert web.post(CHAT, json={**TALK, "palate": None}).status_code == 200
    tool = {"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}
    assert web.post(CHAT, json={**TALK, "messages": [tool]}).status_code == 400


def test_one_model_can_be_looked_up(web: TestClient) -> None:
    assert web.get("/v1/models/palate/soup").json()["id"] == "palate/soup"
    assert code(web.get("/v1/models/gpt")) == "model_not_found"


def test_an_address_that_is_not_there_is_no_wrong_method(web: TestClient) -> None:
    assert web.post("/v1/nothing", json={}).status_code == 404
    assert web.put("/v1/models", json={}).status_code == 405


@pytest.mark.parametrize(
    ("change", "param"),
    [
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "text": "x"}]}]},
            "messages.0.content.0.type",
        ),
        ({"stop": ["x" * 300]}, "stop.0"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ],
)
def test_the_rule_that_is_named_is_of_the_type_that_was_sent(
    web: TestClient, change: dict[str, Any], param: str
) -> None:
    error = web.post(CHAT, json={**TALK, **change}).json()["error"]
    assert error["param"] == param
    assert "valid string" not in error["message"]


def test_a_tenants_admin_reads_the_tenants_series_and_an_operator_the_servers(
    make_served: Callable[..., Served],
) -> None:
    served = make_served(has_keys=True)
    with TestClient(make_app(served), base_url="http://localhost") as client:

        def call(path: str, key: str, **body: Any) -> Any:
            headers = {"authorization": f"Bearer {key}"}
            if body:
                return client.post(path, json=body, headers=headers)
            return client.get(path, headers=headers)

        mine, theirs = (issue_key(served.database, tenant=t, role="admin") for t in "ab")
        whole = issue_key(served.database, tenant="c", role="operator")
        assert call(CHAT, mine, **TALK).status_code == 200
        count = f'palate_requests_total{{route="{CHAT}",status="200"}} 1.0'
        assert count in call("/metrics", mine).text
        assert CHAT not in call("/metrics", theirs).text
        assert "process_cpu" not in call("/metrics", theirs).text
        assert count in call("/metrics", whole).text
        assert "palate_requests_running" in call("/metrics", whole).text
        assert call("/v1/users", whole).status_code == 403


def test_a_key_can_hold_a_part_of_the_open_requests_only(
    make_served: Callable[..., Served],
) -> None:
    served = make_served(has_keys=True, max_open_per_key=2)
    one, other = (ApiKey(name, "a", "", 0.0, is_revoked=False) for name in ("one", "other"))
    with served.opened(one, is_probe=False), served.opened(one, is_probe=False):
        with pytest.raises(ApiError, match="Too many"), served.opened(one, is_probe=False):
            pass
        with served.opened(other, is_probe=False):
            assert served.n_open.total() == 3
    assert not served.n_open
