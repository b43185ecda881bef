"""Methods over HTTP: what is offered, how one is asked for, and what is known of a user."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from palate.core.decision import Known
from palate.core.errors import InvalidInputError
from palate.library.library import Library
from palate.methods.table import METHODS
from palate.serve.settings import ServeSettings

CHAT = "/v1/chat/completions"
TALK = [{"role": "user", "content": "Why is the sky blue?"}]


def ask(client: TestClient, model: str = "palate", **palate: Any) -> Any:
    body = {"model": model, "messages": TALK, "seed": 3, "max_tokens": 6, "palate": palate}
    return client.post(CHAT, json=body)


def test_every_method_is_listed_named_as_a_model_and_answers(web: TestClient) -> None:
    listed = web.get("/v1/library").json()["methods"]
    without = {"best-of-n"}  # the library has no rewards; "shares" is the caller's own
    assert set(listed) == {*METHODS, "shares"} - without
    models = [row["id"] for row in web.get("/v1/models").json()["data"]]
    assert models == ["palate", *(f"palate/{name}" for name in listed if name != "auto")]
    wanted = {"coefficients": {"kind": 0.5, "short": 0.5}, "instruction": "Be brief."}
    for name in set(listed) - {"auto", "portfolio", "shares"}:
        found = ask(web, f"palate/{name}", **wanted)
        assert found.status_code == 200, found.text
        assert found.json()["palate"]["method"] == name
        assert found.headers["x-palate-method"] == name


def test_what_the_library_lacks_is_not_offered(client_of, opened: Library, monkeypatch) -> None:
    monkeypatch.setitem(opened.__dict__, "portfolio", None)
    monkeypatch.setitem(opened.__dict__, "controller", None)
    client = client_of()
    assert not {"portfolio", "mixture"} & set(client.get("/v1/library").json()["methods"])
    assert ask(client, "palate/portfolio").status_code == 404
    refused = ask(client, method="portfolio", preference={"kind": 1.0})
    assert refused.status_code == 400
    assert "no portfolio.json" in refused.json()["error"]["message"]
    regret = client.post("/v1/regret", json={"preferences": [{"kind": 1.0}]})
    assert (regret.status_code, regret.json()["error"]["code"]) == (404, "no_portfolio")
    assert ask(client).json()["palate"]["method"] == "base"  # with nothing known


def test_an_unknown_method_is_refused_in_the_librarys_sentence(
    web: TestClient, opened: Library
) -> None:
    with pytest.raises(InvalidInputError) as own:
        opened.decide(TALK, Known(), method="best")
    found = ask(web, method="best")
    assert found.status_code == 400
    assert found.json()["error"] == {
        "message": str(own.value),
        "type": "invalid_request_error",
        "param": "palate.method",
        "code": "invalid_value",
    }


def test_the_old_name_of_the_field_is_refused_by_naming_the_new_one(web: TestClient) -> None:
    for old, new in (("way", "method"), ("person", "user")):
        refused = ask(web, **{old: "soup"})
        assert refused.status_code == 400
        assert refused.json()["error"] == {
            "message": f"The key 'palate.{old}' is unknown; it is 'palate.{new}' now.",
            "type": "invalid_request_error",
            "param": f"palate.{old}",
            "code": "unknown_parameter",
        }
    question = web.post("/v1/questions", json={"person": "ana", "messages": TALK})
    assert "it is 'user' now" in question.json()["error"]["message"]
    for path in ("/v1/people", "/v1/people/ana", "/v1/people/ana/reset"):
        for method in ("GET", "POST", "DELETE"):
            refused = web.request(method, path, json={})
            assert refused.status_code == 404, (method, path)
            message = refused.json()["error"]["message"]
            assert message == "The address /v1/people is unknown; it is /v1/users now."
    assert "is unknown" not in web.get("/v1/peoples").json()["error"]["message"]


def test_openais_own_field_names_the_user_too(web: TestClient) -> None:
    body = {"model": "palate", "messages": TALK, "max_tokens": 2, "user": "owen"}
    for palate in ({}, {"user": "owen"}):
        answer = web.post(CHAT, json={**body, "palate": palate}).json()
        assert answer["palate"]["user"] == "owen"
        assert answer["palate"]["response"] == answer["id"]
    text = {"model": "palate", "prompt": "Once", "max_tokens": 2, "user": "owen"}
    assert web.post("/v1/completions", json=text).json()["palate"]["user"] == "owen"
    assert len(web.get("/v1/users/owen/export").json()["responses"]) == 3
    for address, other in ((CHAT, body), ("/v1/completions", text)):
        refused = web.post(address, json={**other, "palate": {"user": "ana"}})
        assert refused.status_code == 400
        assert "name different users; give one of them" in refused.json()["error"]["message"]
    assert web.post(CHAT, json={**body, "user": "a\tb"}).status_code == 400


def test_a_model_and_a_method_that_disagree_are_refused(web: TestClient) -> None:
    found = ask(web, "palate/base", method="soup")
    assert (found.status_code, found.json()["error"]["param"]) == (400, "palate.method")
    assert ask(web, "palate/base", method="base").status_code == 200
    for name in ("palate/", "palate/auto", "palate/nothing", "other"):
        assert ask(web, name).status_code == 404


@pytest.mark.parametrize("method", ["prompt", "prompted-soup"])
def test_an_instruction_is_read_by_the_model_but_not_recorded_as_the_users_question(
    web: TestClient, method: str
) -> None:
    known = {"user": f"ivo-{method}", "coefficients": {"kind": 0.3}}
    plain = ask(web, **known, method="soup").json()
    told = ask(web, **known, method=method, instruction=" Be brief. ").json()
    assert told["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"]
    assert "'Be brief.'" in told["palate"]["reason"]
    rows = web.get(f"/v1/users/{known['user']}/export").json()["responses"]
    assert rows[0]["prompt"] == rows[1]["prompt"]
    verdict = {"kind": "comparison", "preferred": 1, "against": told["palate"]["response"]}
    given = web.post("/v1/feedback", json={"response": plain["palate"]["response"], **verdict})
    assert given.status_code == 200, given.text


def test_an_instruction_alone_is_a_belief_or_else_a_prompt(web: TestClient) -> None:
    assert ask(web, instruction="Use metric units.").json()["palate"]["method"] == "prompt"
    brief = ask(web, instruction="Be brief.").json()["palate"]
    assert brief["method"] == "prompted-soup"
    assert brief["coefficients"]["short"] > 0.0
    assert ask(web, instruction="   ").json()["palate"]["method"] == "portfolio"  # says nothing


def test_passes_and_utility_are_told(web: TestClient) -> None:
    said = ask(web, method="output-soup", coefficients={"kind": 0.5, "short": 0.25}).json()
    assert said["palate"]["n_passes"] == 3.0  # two experts and the reference
    assert said["palate"]["predicted_utility"] is None  # the library's methods were not measured


@pytest.mark.parametrize(
    ("key", "instead"), [("strength", "soup.json"), ("auto_tolerance", "methods.json")]
)
def test_settings_that_are_gone_are_refused_by_naming_what_replaces_them(
    key: str, instead: str
) -> None:
    with pytest.raises(InvalidInputError, match=f"'{key}' is gone, remove it.*{instead}"):
        ServeSettings.checked({key: 1.0}, source="settings")


@pytest.mark.parametrize(("key", "now"), ServeSettings.RENAMED.items())
def test_settings_that_were_renamed_are_refused_by_their_new_names(key: str, now: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{key}.*{now}"):
        ServeSettings.checked({key: 4}, source="settings")
