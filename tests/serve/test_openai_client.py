"""The real OpenAI client against a server that listens."""

import time
from typing import Any

import openai
import pytest
from openai import OpenAI

from palate.serve.state import Served

TALK = [{"role": "user", "content": "Why is the sky blue?"}]
TASTE = {"palate": {"preference": {"kind": 0.5, "short": 0.5}}}


def test_a_chat_says_how_it_came_about(openai_client: OpenAI) -> None:
    answer = openai_client.chat.completions.create(
        model="palate", messages=TALK, seed=3, extra_body=TASTE
    )
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.palate["method"] == "prompted-soup"
    assert answer.palate["coefficients"] == pytest.approx({"kind": 0.5, "short": 0.5, "plain": 0})
    assert answer.palate["members"] == ["kind", "short"]
    assert answer.palate["response"] is None  # nobody was named


@pytest.mark.parametrize("is_streamed", [False, True])
def test_headers_say_how_an_answer_came_about(openai_client: OpenAI, *, is_streamed: bool) -> None:
    for create, asked in (
        (openai_client.chat.completions.with_raw_response.create, {"messages": TALK}),
        (openai_client.completions.with_raw_response.create, {"prompt": "Why?"}),
    ):
        found: Any = create(
            model="palate", max_tokens=3, stream=is_streamed, extra_body=TASTE, **asked
        )
        assert found.headers["x-palate-method"] == "prompted-soup"
        assert found.headers["x-palate-learning"] == "nothing"
        assert "x-palate-certified-loss" not in found.headers  # this method carries no certificate
        found.parse()


def test_a_conversation_reads_only_what_is_new_of_each_turn(openai_client: OpenAI) -> None:
    talk: list[Any] = [{"role": "user", "content": "What is a rainbow, and who made it?"}]
    common = {"model": "palate", "seed": 3, "max_tokens": 20, "temperature": 0, "extra_body": TASTE}
    first = openai_client.chat.completions.create(messages=talk, **common)
    talk.append({"role": "assistant", "content": first.choices[0].message.content})
    talk.append({"role": "user", "content": "And?"})
    second = openai_client.chat.completions.create(messages=talk, **common)
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    known = second.usage.prompt_tokens_details.cached_tokens
    assert first.usage.prompt_tokens - 16 <= known < second.usage.prompt_tokens
    assert known % 16 == 0


@pytest.mark.parametrize(
    "method",
    [
        "base",
        "portfolio",
        "soup",
        "prompted-soup",
        "output-soup",
        "implicit-soup",
        "mixture",
        "shares",
    ],
)
def test_a_stream_is_the_text_that_is_not_streamed(openai_client: OpenAI, method: str) -> None:
    asked = {"palate": {"preference": {"kind": 0.3, "plain": 0.7}, "method": method, "user": "ana"}}
    common = {"model": "palate", "messages": TALK, "seed": 11, "max_tokens": 30, "n": 2}
    whole = openai_client.chat.completions.create(**common, extra_body=asked)
    texts, ends = ["", ""], [None, None]
    chunks = list(openai_client.chat.completions.create(**common, stream=True, extra_body=asked))
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert texts[0] != texts[1]
    assert chunks[0].palate["method"] == method
    assert chunks[0].palate["response"] == chunks[0].id
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_model_name_can_fix_the_way(openai_client: OpenAI) -> None:
    names = [model.id for model in openai_client.models.list()]
    assert names[0] == "palate"
    assert "palate/output-soup" in names
    answer = openai_client.chat.completions.create(
        model="palate/output-soup", messages=TALK, seed=1, extra_body=TASTE
    )
    assert answer.palate["method"] == "output-soup"


def test_usage_comes_last_in_a_stream_that_asks_for_it(openai_client: OpenAI) -> None:
    chunks = list(
        openai_client.chat.completions.create(
            model="palate",
            messages=TALK,
            max_tokens=5,
            seed=2,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 5


def test_log_probabilities_are_those_of_the_text(openai_client: OpenAI) -> None:
    common = {"model": "palate", "messages": TALK, "seed": 4, "max_tokens": 8}
    answer = openai_client.chat.completions.create(
        **common, logprobs=True, top_logprobs=3, extra_body=TASTE
    )
    said = answer.choices[0].logprobs.content
    for token in said:
        assert token.logprob <= 0
        ranked = [other.logprob for other in token.top_logprobs]
        assert len(ranked) == 3
        assert ranked == sorted(ranked, reverse=True)
        assert token.logprob <= ranked[0] + 1e-6
    streamed = openai_client.chat.completions.create(
        **common, logprobs=True, stream=True, extra_body=TASTE
    )
    found = [
        token.logprob
        for chunk in streamed
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content
    ]
    assert found == pytest.approx([token.logprob for token in said], abs=1e-4)


def test_a_completion_continues_a_text_and_stops_before_a_stop_string(
    openai_client: OpenAI,
) -> None:
    common = {"model": "palate", "prompt": "Once", "seed": 5, "max_tokens": 40}
    free = openai_client.completions.create(**common, logprobs=2)
    text = free.choices[0].text
    said = free.choices[0].logprobs
    assert len(said.tokens) == len(said.token_logprobs) == len(said.text_offset)
    assert said.text_offset[0] == 0
    stop = text[4:6]
    bound = openai_client.completions.create(**common, stop=[stop])
    assert bound.choices[0].text == text[: text.index(stop)]
    assert bound.choices[0].finish_reason == "stop"
    streamed = openai_client.completions.create(**common, stop=[stop], stream=True)
    assert "".join(c.choices[0].text for c in streamed if c.choices) == bound.choices[0].text


def test_errors_are_the_clients_own(openai_client: OpenAI) -> None:
    create = openai_client.chat.completions.create
    with pytest.raises(openai.NotFoundError) as missing:
        create(model="gpt-9", messages=TALK)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="unknown objective"):
        create(model="palate", messages=TALK, extra_body={"palate": {"preference": {"x": 1.0}}})
    with pytest.raises(openai.BadRequestError) as unknown:
        create(model="palate", messages=TALK, extra_body={"palate": {"taste": 1}})
    assert unknown.value.param == "palate.taste"
    with pytest.raises(openai.BadRequestError) as long:
        create(model="palate", messages=[{"role": "user", "content": "x" * 200}])
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="tokens"):
        create(model="palate", messages=[{"role": "user", "content": "x" * 200}], stream=True)


@pytest.mark.parametrize(
    ("n", "palate"),
    [(8, {}), (2, {"coefficients": {"kind": 1.0}, "method": "soup", "n_candidates": 8})],
    ids=["one candidate", "eight candidates"],
)
def test_an_answer_that_nobody_waits_for_is_let_go_of(
    openai_client: OpenAI, running: tuple[Served, str], n: int, palate: dict[str, Any]
) -> None:
    served = running[0]
    before = served.metrics.registry.get_sample_value("palate_cancelled_total")
    stream = openai_client.chat.completions.create(
        model="palate",
        messages=TALK,
        max_tokens=64,
        stream=True,
        n=n,
        seed=1,
        extra_body={"palate": palate},
    )
    next(iter(stream))
    stream.close()
    deadline = time.monotonic() + 10
    while served.worker._jobs:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert served.metrics.registry.get_sample_value("palate_cancelled_total") > before
