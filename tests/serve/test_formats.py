"""Answers of a form that is asked for, biased tokens, and pages of other sites."""

import json
import time
from typing import Any

import openai
import pytest
from openai import OpenAI
from starlette.testclient import TestClient

from palate.core.errors import InvalidInputError
from palate.serve.settings import ServeSettings

CHAT = "/v1/chat/completions"
TALK: dict[str, Any] = {
    "model": "palate",
    "messages": [{"role": "user", "content": "Who are you?"}],
    "seed": 1,
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 4},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
MIXED = {"preference": {"kind": 0.5, "short": 0.5}}


def is_person(text: str) -> bool:
    person = json.loads(text)
    assert list(person) == ["name", "age"]
    return len(person["name"]) <= 4 and 0 <= person["age"] <= 99


@pytest.mark.parametrize("method", ["soup", "mixture", "output-soup", "implicit-soup"])
def test_twelve_of_twelve_answers_are_json_by_the_schema(
    openai_client: OpenAI, method: str
) -> None:
    answers = [
        openai_client.chat.completions.create(
            **{**TALK, "seed": seed, "n": 4},
            max_tokens=60,
            response_format=FORM,
            extra_body={"palate": {**MIXED, "method": method}},
        )
        for seed in range(3)
    ]
    choices = [choice for answer in answers for choice in answer.choices]
    assert len(choices) == 12
    assert all(is_person(choice.message.content) for choice in choices)
    assert {choice.finish_reason for choice in choices} == {"stop"}
    assert {answer.palate["method"] for answer in answers} == {method}


def test_a_stream_of_json_is_the_json_that_is_not_streamed(openai_client: OpenAI) -> None:
    body = {**TALK, "max_tokens": 60, "response_format": FORM}
    whole = openai_client.chat.completions.create(**body)
    chunks = openai_client.chat.completions.create(**body, stream=True)
    text = "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices)
    assert text == whole.choices[0].message.content
    assert is_person(text)


def test_best_of_n_ranks_answers_of_the_form(openai_client: OpenAI) -> None:
    palate = {"coefficients": {"kind": 1.0}, "method": "soup", "n_candidates": 3}
    answer = openai_client.chat.completions.create(
        **TALK, max_tokens=60, response_format=FORM, extra_body={"palate": palate}
    )
    assert is_person(answer.choices[0].message.content)
    assert answer.palate["n_candidates"] == 3


def test_any_json_object_begins_as_one_and_ends_with_its_length(openai_client: OpenAI) -> None:
    answer = openai_client.chat.completions.create(
        **TALK,
        n=8,
        max_tokens=3,
        response_format={"type": "json_object"},
    )
    ends = {choice.message.content: choice.finish_reason for choice in answer.choices}
    assert all(text.startswith("{") for text in ends)
    assert all((end == "stop") == (text == "{}") for text, end in ends.items())
    assert "length" in ends.values()


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_form_that_does_not_fit_ends_with_its_length(
    openai_client: OpenAI, *, is_streamed: bool
) -> None:
    long = {"type": "json_schema", "json_schema": {"name": "long", "schema": {"minLength": 90}}}
    long["json_schema"]["schema"]["type"] = "string"
    found: Any = openai_client.chat.completions.create(
        **TALK, max_tokens=8, response_format=long, stream=is_streamed
    )
    ends = [c.finish_reason for part in ([found], found)[is_streamed] for c in part.choices]
    assert ends[-1] == "length"


@pytest.mark.parametrize(
    ("form", "param", "reason"),
    [
        ({"type": "xml"}, "response_format.type", "json_schema"),
        ({"type": "json_schema"}, "response_format", "goes with the type"),
        ({**FORM, "type": "text"}, "response_format", "goes with the type"),
        (
            {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
            "response_format.json_schema.name",
            "missing",
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "colour"}}},
            "response_format",
            r"cannot be followed \(Invalid type: colour\); change it",
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["\ud800"]}}},
            "response_format",
            "cannot be followed",
        ),
    ],
)
def test_a_form_that_cannot_be_kept_is_refused(
    web: TestClient, form: dict[str, Any], param: str, reason: str
) -> None:
    response = web.post(
        CHAT,
        content=json.dumps({**TALK, "response_format": form}),
        headers={"content-type": "application/json"},
    )
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == param
    with pytest.raises(ValueError, match=reason):
        raise ValueError(error["message"])


def test_a_schema_that_would_take_long_is_refused_at_once(web: TestClient) -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(300):
        deep = {"type": "array", "items": deep}
    wide = {"properties": {f"k{place}": {"type": "integer"} for place in range(5000)}}
    for schema, reason in ((deep, "recursion limit"), (wide, "characters, more than 32768")):
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        started = time.monotonic()
        error = web.post(CHAT, json={**TALK, "response_format": form}).json()["error"]
        assert reason in error["message"]
        assert time.monotonic() - started < 5  # reading the wide one takes longer


def test_biases_ban_and_choose_tokens(openai_client: OpenAI) -> None:
    create = openai_client.chat.completions.create
    answer = create(**TALK, max_tokens=5, logit_bias={"77": 100}, extra_body={"palate": MIXED})
    assert len(set(answer.choices[0].message.content)) == 1
    with pytest.raises(openai.BadRequestError, match=r"token 259, but ids go from 0 to 258"):
        create(**TALK, logit_bias={"259": 1})
    for wrong in ({"x": 1}, {"5": 101}):
        with pytest.raises(openai.BadRequestError, match="logit_bias"):
            create(**TALK, logit_bias=wrong)


SITE = {"origin": "https://app.example"}
PREFLIGHT = {"access-control-request-method": "POST"}
ALLOWED = "access-control-allow-origin"


def test_pages_of_other_sites_are_refused_but_those_that_are_named(client_of: Any) -> None:
    shut, opened = client_of(), client_of(cors_origins=("https://app.example",))
    asked = {"access-control-request-headers": "authorization,x-stainless-lang"}
    before = opened.options(CHAT, headers={**SITE, **PREFLIGHT, **asked})
    assert before.status_code == 200
    assert before.headers[ALLOWED] == "https://app.example"
    assert "x-stainless-lang" in before.headers["access-control-allow-headers"]
    answer = opened.post(CHAT, json={**TALK, "max_tokens": 2}, headers=SITE)
    assert answer.status_code == 200
    assert answer.headers[ALLOWED] == "https://app.example"
    assert "X-Palate-Method" in answer.headers["access-control-expose-headers"]
    bad = opened.post(CHAT, json={}, headers=SITE)
    assert (bad.status_code, bad.headers[ALLOWED]) == (400, "https://app.example")
    other = {"origin": "https://evil.example"}
    assert opened.post(CHAT, json=TALK, headers=other).status_code == 403
    assert ALLOWED not in opened.get("/v1/models", headers=other).headers
    assert shut.options(CHAT, headers={**SITE, **PREFLIGHT}).status_code == 405
    assert shut.post(CHAT, json=TALK, headers=SITE).status_code == 403
    assert ALLOWED not in shut.get("/v1/models", headers=SITE).headers


@pytest.mark.parametrize("origin", ["*", "app.example", "https://app.example/page"])
def test_an_origin_is_named_in_full(origin: str) -> None:
    with pytest.raises(InvalidInputError, match="cors_origins"):
        ServeSettings.checked({"cors_origins": [origin]}, source="settings")
