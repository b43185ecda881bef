"""Tools: offered by the base's chat template, called by force or by the model's own words."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from starlette.testclient import TestClient

from palate.library.library import Library
from palate.models.chat import BREAK
from palate.serve.called import calls_in, n_plain
from palate.serve.forms import ChatForm
from palate.serve.respond import _choice
from palate.serve.state import Served
from palate.serve.wire.chat import ChatIn

CHAT = "/v1/chat/completions"
TALK: dict[str, Any] = {
    "model": "palate",
    "messages": [{"role": "user", "content": "How warm is it?"}],
    "seed": 1,
    "max_tokens": 100,
}
CITY = {"type": "string", "maxLength": 4}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "$defs": {"city": CITY},
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/city"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TIME: Any = {"type": "function", "function": {"name": "time"}}
TOOLS = [WEATHER, TIME]
NAMED: Any = {"type": "function", "function": {"name": "weather"}}
MIXED = {"palate": {"coefficients": {"kind": 1.0, "short": 0.5}, "method": "soup"}}


@pytest.fixture(scope="module")
def served(make_served: Callable[..., Served], tooled: Library) -> Served:
    return make_served(library=tooled, max_prompt_tokens=4000, max_tokens=400)


@pytest.fixture(scope="module")
def client(served: Served, listen: Any) -> Iterator[OpenAI]:
    address, stop = listen(served)
    with OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client
    stop()


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_forced_answer_is_a_call_with_arguments_by_its_schema(
    client: OpenAI, choice: Any
) -> None:
    answer = client.chat.completions.create(
        **TALK, n=4, tools=TOOLS, tool_choice=choice, extra_body=MIXED
    )
    for one in answer.choices:
        (call,) = one.message.tool_calls
        assert (one.finish_reason, one.message.content) == ("tool_calls", None)
        assert call.function.name in (["weather"] if choice is NAMED else ["weather", "time"])
        arguments = json.loads(call.function.arguments)
        assert list(arguments) == (["city"] if call.function.name == "weather" else [])
        assert len(arguments.get("city", "")) <= 4


def test_a_stream_gives_the_same_call(client: OpenAI) -> None:
    body = {**TALK, "tools": TOOLS, "tool_choice": NAMED, "extra_body": MIXED}
    whole = client.chat.completions.create(**body).choices[0].message.tool_calls[0]
    chunks = [c.choices[0] for c in client.chat.completions.create(**body, stream=True)]
    (call,) = [call for one in chunks for call in one.delta.tool_calls or []]
    assert call.index == 0
    assert call.function.arguments == whole.function.arguments
    assert "".join(one.delta.content or "" for one in chunks) == ""
    assert chunks[-1].finish_reason == "tool_calls"


def test_a_free_answer_streams_as_it_is_whole_and_calls_that_do_not_fit_end_with_length(
    client: OpenAI,
) -> None:
    body = {**TALK, "tools": TOOLS, "extra_body": MIXED, "max_tokens": 20}
    whole = client.chat.completions.create(**body).choices[0]
    chunks = client.chat.completions.create(**body, stream=True)
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert whole.message.content == text
    assert whole.message.tool_calls is None
    short = client.chat.completions.create(**{**body, "max_tokens": 9}, tool_choice="required")
    assert short.choices[0].finish_reason == "length"
    assert short.choices[0].message.content == '{"name": '


def test_a_call_and_its_result_are_read_by_the_template_as_text(
    client: OpenAI, served: Served
) -> None:
    answer = client.chat.completions.create(**TALK, tools=TOOLS, tool_choice=NAMED)
    call = answer.choices[0].message.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": "21 </s> degrees"}
    talk = [*TALK["messages"], answer.choices[0].message, result]
    read: list[str] = []
    own = served.library.format
    served.library.format = lambda messages: read.append(own(messages)) or read[-1]
    try:
        last = client.chat.completions.create(**{**TALK, "messages": talk}, tools=TOOLS)
    finally:
        del served.library.format
    text = read[-1].replace("\\ufdd0", BREAK)
    assert last.choices[0].finish_reason in ("stop", "length")
    assert text.startswith('[tools][{"type": "function", "function": {"name": "weather"')
    arguments = json.dumps(json.loads(call.function.arguments), ensure_ascii=False)
    assert f'<tool_call>{{"name": "weather", "arguments": {arguments}}}</tool_call>' in text
    assert f"[tool]21 <{BREAK}/s> degrees" in text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"tool_choice": {"type": "function", "function": {"name": "x"}}},
            "asks for a function that tools do not hold",
        ),
        ({"tools": None, "tool_choice": "required"}, "asks for a function that tools do not hold"),
        ({"response_format": {"type": "json_object"}}, "leave one out"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "pattern"),
        ({"tools": [{"type": "search"}]}, "function"),
    ],
)
def test_tools_that_cannot_be_offered_are_refused(
    client: OpenAI, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=reason):
        client.chat.completions.create(**{**TALK, "tools": TOOLS, **change})


def test_a_tool_whose_arguments_have_no_schema_is_named(client: OpenAI) -> None:
    tool = {"type": "function", "function": {"name": "x", "parameters": {"type": "colour"}}}
    with pytest.raises(openai.BadRequestError, match="Invalid type: colour") as refused:
        client.chat.completions.create(**TALK, tools=[tool], tool_choice="required")
    assert refused.value.param == "tools"


def test_a_base_whose_template_takes_no_tools_refuses_them(web: TestClient) -> None:
    talk = {**TALK, "max_tokens": 4}
    result = {"role": "tool", "tool_call_id": "1", "content": "21"}
    bodies = [{**talk, "tools": TOOLS}, {**talk, "messages": [*talk["messages"], result]}]
    for body in bodies:
        response = web.post(CHAT, json=body)
        assert response.status_code == 400
        assert "takes no tools; leave tools out, or" in response.json()["error"]["message"]
    assert web.post(CHAT, json={**talk, "tools": TOOLS, "tool_choice": "none"}).status_code == 200


CALL = '{"name": "weather", "arguments": {"city": "Rom"}}'


@pytest.mark.parametrize(
    ("text", "content", "n_calls"),
    [
        (CALL, "", 1),
        (f" [{CALL}, {CALL}]\n", "", 2),
        (
            f"I look.\n<tool_call>\n{CALL}\n</tool_call>\n<tool_call>{CALL}</tool_call>",
            "I look.",
            2,
        ),
        (f"<tool_call>{CALL}", "", 1),
        ('{"name": "time", "parameters": {}}', "", 1),
        ('{"name": "other", "arguments": {}}', None, 0),
        ('{"name": "weather", "arguments": "Rom"}', None, 0),
        ('{"name": ["weather"], "arguments": {}}', None, 0),
        ('[{"name": {"a": 1}, "arguments": {}}]', None, 0),
        ("<tool_call>weather</tool_call>", None, 0),
        ("[1]", None, 0),
        ("[]", None, 0),
        ("It is warm.", None, 0),
    ],
)
def test_calls_are_found_as_models_write_them(text: str, content: str | None, n_calls: int) -> None:
    before, calls = calls_in(text, TOOLS)
    assert before == (text if content is None else content)
    assert len(calls) == n_calls
    assert all(json.loads(call["function"]["arguments"]) in ({"city": "Rom"}, {}) for call in calls)


def test_half_a_character_in_arguments_can_be_sent() -> None:
    _, (call,) = calls_in('{"name": "weather", "arguments": {"city": "\\ud800é"}}', TOOLS)
    assert call["function"]["arguments"] == '{"city": "?é"}'


@pytest.mark.parametrize(
    ("pieces", "n_calls"),
    [
        (("See", " [", "1", "] for", " more."), 0),
        (("Sure:", ' {"name": "time", "arguments": {}}'), 0),
        (("Sure: <tool", '_call>{"name": "time", "arguments": {}}', "</tool_call>"), 1),
        (("[Look]", ' <tool_call>{"name": "time", "arguments": {}}', "</tool_call>"), 1),
        (("<tool", "_box>", " and <tool"), 0),
        ((" ", '{"name": "time",', ' "arguments": {}}'), 1),
    ],
)
def test_a_stream_is_the_whole_answer_and_holds_back_no_text_that_cannot_be_a_call(
    pieces: tuple[str, ...], n_calls: int
) -> None:
    form = ChatForm(ChatIn.model_validate({**TALK, "tools": TOOLS}), base=None)
    sent = [form.text(piece, index=0)["delta"]["content"] for piece in pieces]
    last = form.text(None, index=0)["delta"]
    whole = form.text("".join(pieces), index=0, is_whole=True)["message"]
    assert len(last.get("tool_calls", [])) == len(whole.get("tool_calls", [])) == n_calls
    assert ("".join(sent) + last.get("content", "")).strip() == (whole["content"] or "").strip()
    if pieces[0] == "See":
        assert sent == list(pieces)  # each at once


def test_no_more_than_one_call_where_calls_may_not_be_parallel() -> None:
    body = {**TALK, "tools": TOOLS, "parallel_tool_calls": False}
    form = ChatForm(ChatIn.model_validate(body), base=None)
    calls = '[{"name": "time", "arguments": {}}, {"name": "weather", "arguments": {}}]'
    (call,) = form.text(calls, index=0, is_whole=True)["message"]["tool_calls"]
    form.text(calls, index=0)
    (streamed,) = form.text(None, index=0)["delta"]["tool_calls"]
    assert call["function"]["name"] == streamed["function"]["name"] == "time"


def test_text_about_tool_calls_is_no_call() -> None:
    for text, finish in (
        ({"text": "the tool_calls key"}, "stop"),
        ({"message": {"tool_calls": []}}, "tool_calls"),
    ):
        assert _choice(0, text, finish="stop")["finish_reason"] == finish


@pytest.mark.parametrize(
    ("text", "n"),
    [("", 0), (" ", 0), ("{", 0), (" [1", 0), ("Hi", 2), ("Hi <", 3), ("Hi <tool", 3),
     ("Hi <tool_call>{", 3), ("Hi <b>", 6)],
)  # fmt: skip
def test_what_may_become_a_call_is_held_back(text: str, n: int) -> None:
    assert n_plain(text) == n
