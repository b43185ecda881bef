"""The server with a vLLM behind it: the answers of the server in this process, or an error."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from starlette.testclient import TestClient

from palate.core.protocols import SamplingParams
from palate.engine.protocol import ExecutionReport
from palate.library.engines import choose_engine, open_engine
from palate.library.library import Library
from palate.serve.answers import engine_out
from palate.serve.app import make_app
from palate.serve.assemble import assemble
from palate.serve.settings import ServeSettings
from palate.serve.state import Served
from vllm_stand_in import StandIn, standing_in

N_VOCAB = 259
GRID = {"kind": 0.5, "short": -0.25, "plain": 0.75}  # multiples of the step, so nothing is rounded
EXACT = {
    "base": {"method": "base"},
    "portfolio": {"method": "portfolio", "preference": {"kind": 1.0}},
    "soup": {"method": "soup", "coefficients": GRID},
    "output soup": {"method": "output-soup", "coefficients": GRID},
    "mixture": {"method": "shares", "preference": {"kind": 0.25, "plain": 0.75}},
    "implicit soup": {"method": "implicit-soup", "coefficients": GRID},
}


@pytest.fixture
def vllm(opened: Library) -> Iterator[StandIn]:
    with standing_in(opened.base, dict(opened.files.expert_folders())) as running:
        yield running


@pytest.fixture
def parts_beside(vllm: StandIn, opened: Library, tmp_path: Path) -> Callable[..., Served]:
    """Makes the parts of a server on the vLLM; settings are of its use."""

    def make(*, is_rated: bool = False, **changes: Any) -> Served:
        values = {"top_k": N_VOCAB, "max_top_k": N_VOCAB, "n_retries": 0, **changes}
        adapters = tmp_path / f"adapters-{time.monotonic_ns()}"  # of each process its own
        use = {"url": vllm.url, "adapters_folder": adapters, "is_rated": is_rated, **values}
        return assemble(
            opened,
            ServeSettings(default_tokens=12, apply_after=1, max_prompt_tokens=150),
            database=f"sqlite:///{tmp_path}/{time.monotonic_ns()}.db",
            engine_of=choose_engine("vllm", use).open,
        )

    return make


@pytest.fixture
def beside(parts_beside: Callable[..., Served]) -> Iterator[Callable[..., TestClient]]:
    """Makes a client of such a server."""
    with ExitStack() as closing:

        def make(**settings: Any) -> TestClient:
            app = make_app(parts_beside(**settings))
            return closing.enter_context(
                TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
            )

        yield make


def ask(client: TestClient, palate: dict, *, temperature: float = 0.0, **more: Any):
    body = {"model": "palate", "messages": [{"role": "user", "content": "A cat"}], **more}
    return client.post(
        "/v1/chat/completions", json={**body, "palate": palate, "temperature": temperature}
    )


def events(text: str) -> list[dict]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize("pools", ["lists", "server"])
def test_every_way_answers_as_in_this_process_and_says_that_it_is_exact(
    beside, web: TestClient, pools: str
) -> None:
    client = beside(pools=pools)
    for palate in EXACT.values():
        found, own = (ask(c, palate, logprobs=True, top_logprobs=2).json() for c in (client, web))
        ours, theirs = own["choices"][0], found["choices"][0]
        assert theirs["message"] == ours["message"]
        assert [one["token"] for one in theirs["logprobs"]["content"]] == [
            one["token"] for one in ours["logprobs"]["content"]
        ]
        for left, right in zip(
            theirs["logprobs"]["content"], ours["logprobs"]["content"], strict=True
        ):
            assert left["logprob"] == pytest.approx(right["logprob"], abs=1e-4)
        assert found["palate"]["engine"]["is_exact"]
        assert own["palate"]["engine"] is None


@pytest.mark.parametrize("method", ["soup", "mixture"])
def test_drawn_answers_with_a_seed_are_those_of_this_process(
    beside, web: TestClient, method: str
) -> None:
    client = beside(draws="own", pools="server")
    found, own = (
        ask(c, EXACT[method], temperature=1.0, seed=5, n=3, stop=["zzz"]).json()
        for c in (client, web)
    )
    texts = [[choice["message"]["content"] for choice in one["choices"]] for one in (found, own)]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 1


def test_rounded_coefficients_are_told_with_their_bound(beside, web: TestClient) -> None:
    client = beside(coefficient_step=0.1, is_rated=True)
    asked = {"method": "soup", "coefficients": {"kind": 0.52, "short": 0.18, "plain": 0.1}}
    found = ask(client, asked).json()
    said = found["palate"]["engine"]
    near = {"kind": 0.5, "short": 0.2, "plain": 0.1}
    assert said["coefficients"] == pytest.approx(near)
    assert not said["is_exact"]
    assert 0 < said["rounding_bound"] <= 1
    assert said["parameter_change"] > 0
    assert found["palate"]["coefficients"]["kind"] == 0.52  # what was asked for
    own = ask(web, {"method": "soup", "coefficients": near}).json()
    assert found["choices"][0]["message"] == own["choices"][0]["message"]
    unrated = ask(beside(coefficient_step=0.1), asked).json()
    assert unrated["palate"]["engine"]["rounding_bound"] is None


def test_short_lists_are_told_with_their_bound_or_refused(beside) -> None:
    loose = ask(beside(top_k=40, max_top_k=40, budget=1.0), EXACT["mixture"]).json()
    assert 0 < loose["palate"]["engine"]["list_bound"] < 1
    tight = beside(top_k=20, max_top_k=20, budget=0.001)
    refused = ask(tight, EXACT["mixture"])
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "not_certified"
    assert "raise max_top_k" in refused.json()["error"]["message"]
    signed = ask(tight, EXACT["output soup"])
    assert signed.status_code == 400
    assert "whole vocabularies" in signed.json()["error"]["message"]


@pytest.mark.parametrize("address", ["/v1/chat/completions", "/v1/completions"])
def test_a_stream_ends_with_what_was_approximated(beside, address: str) -> None:
    client = beside(coefficient_step=0.1, is_rated=True)
    body = {"model": "palate", "palate": {"coefficients": {"kind": 0.52}, "method": "soup"}}
    prompt = {"prompt": "A cat"}
    if address.endswith("chat/completions"):
        prompt = {"messages": [{"role": "user", "content": "A cat"}]}
    whole = client.post(address, json={**body, **prompt, "temperature": 0}).json()
    stream = client.post(address, json={**body, **prompt, "temperature": 0, "stream": True})
    found = events(stream.text)
    first, last = found[0]["palate"]["engine"], found[-1]["palate"]["engine"]
    assert first["rounding_bound"] == last["rounding_bound"] > 0
    assert last == whole["palate"]["engine"]


def test_feedback_on_its_answers_teaches_as_in_this_process(beside, client_of) -> None:
    clients = beside(coefficient_step=0.0), client_of(default_tokens=12, apply_after=1)
    beliefs, answers = [], []
    for client in clients:
        shown = ask(client, {"user": "ana", "method": "soup", "coefficients": GRID}, n=2).json()
        told = {"response": shown["palate"]["response"], "kind": "thumbs", "thumbs": "up"}
        given = client.post("/v1/feedback", json=told)
        assert given.status_code == 200, given.text
        beliefs.append([one["mean"] for one in given.json()["belief"]["experts"]])
        learned = ask(client, {"user": "ana"}).json()
        assert learned["palate"]["learning"] == "applied"
        answers.append(learned["choices"][0]["message"]["content"])
    assert beliefs[0] == pytest.approx(beliefs[1], abs=1e-5)
    assert answers[0] == answers[1]


def test_explanations_and_questions_are_given(beside, web: TestClient) -> None:
    client = beside(pools="server")
    for method in ("soup", "mixture"):
        found, own = (ask(c, {**EXACT[method], "explain": True}).json() for c in (client, web))
        for left, right in zip(
            found["choices"][0]["palate"]["tokens"],
            own["choices"][0]["palate"]["tokens"],
            strict=True,
        ):
            assert left["wrote"] == pytest.approx(right["wrote"], abs=1e-3)
    question = {"user": "bo", "messages": [{"role": "user", "content": "A cat"}]}
    assert client.post("/v1/questions", json=question).status_code == 200


def test_readiness_follows_the_vllm(beside, vllm: StandIn) -> None:
    client = beside()
    assert client.get("/ready").status_code == 200
    vllm.is_well = False
    down = client.get("/ready")
    assert down.status_code == 503
    assert down.json()["error"]["code"] == "engine_unavailable"
    assert client.get("/health").status_code == 200  # this process lives


@pytest.mark.parametrize("pools", ["lists", "server"])
@pytest.mark.parametrize("method", ["soup", "mixture"])
def test_a_vllm_that_dies_in_the_middle_of_an_answer_is_an_error(
    beside, vllm: StandIn, method: str, pools: str
) -> None:
    client = beside(pools=pools)
    assert ask(client, EXACT[method]).status_code == 200
    vllm.dies_after = 2
    vllm.faults = [500] * 3 if (method, pools) == ("mixture", "lists") else []
    broken = ask(client, EXACT[method])
    assert broken.status_code == 503, broken.text
    assert broken.json()["error"]["code"] == "unavailable"
    vllm.faults = [500] * 3 if (method, pools) == ("mixture", "lists") else []
    streamed = ask(client, EXACT[method], stream=True)
    assert "error" in (
        events(streamed.text)[-1] if streamed.status_code == 200 else streamed.json()
    )
    vllm.dies_after, vllm.faults = None, []
    assert ask(client, EXACT[method]).status_code == 200


@pytest.mark.parametrize(("method", "n_streams"), [("soup", 1), ("mixture", 2)])
def test_an_answer_that_nobody_waits_for_is_cancelled_there_too(
    parts_beside, vllm: StandIn, listen, method: str, n_streams: int
) -> None:
    served = parts_beside(pools="server")
    vllm.pause = 0.05
    address, stop = listen(served)
    with OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="palate",
            messages=[{"role": "user", "content": "A cat"}],
            max_tokens=64,
            seed=1,  # some seeds draw the token that ends a broken group, likely on a random model
            stream=True,
            extra_body={"palate": EXACT[method]},
        )
        next(iter(stream))
        stream.close()
        deadline = time.monotonic() + 2.0  # the whole answer would take three seconds and more
        while vllm.n_left < n_streams and time.monotonic() < deadline:
            time.sleep(0.01)
    stop()
    assert vllm.n_left == n_streams
    assert not served.worker._jobs


def test_a_server_that_ends_takes_its_soups_off_the_vllm(parts_beside, vllm: StandIn) -> None:
    with TestClient(make_app(parts_beside()), base_url="http://localhost") as client:
        assert ask(client, EXACT["soup"]).status_code == 200
        assert any(name.startswith("palate-soup") for name in vllm.models)
    assert not any(name.startswith("palate-soup") for name in vllm.models)


def test_a_group_that_the_vllm_splits_is_an_error(beside, vllm: StandIn) -> None:
    client = beside(pools="server")
    vllm.n_seats = 1
    split = ask(client, EXACT["mixture"])
    assert split.status_code == 503
    assert "rather than left unmixed" in split.json()["error"]["message"]


def test_several_answers_are_reported_by_their_worst() -> None:
    one = ExecutionReport(((0.5, 0.0),), 0.0, 0.0, (0.0, 0.0), (0.1, 0.1), True, 1)
    rounded = replace(one, parameter_change=0.3, rounding_bound=0.02, leads=(0.1, 0.01))
    out = engine_out("vllm", [one, rounded], experts=("a", "b"))
    assert out["coefficients"] == {"a": 0.5, "b": 0.0}
    assert (out["rounding_bound"], out["list_bound"], out["is_exact"]) == (0.02, 0.0, False)
    assert (out["n_certified"], out["n_calls"]) == (3, 2)  # a lead of .01 is within twice the bound
    rows = ((1.0, 0.0), (0.0, 1.0))
    pooled = replace(one, coefficients=rows, rounding_bound=None, list_bounds=(0.2,), leads=(0.1,))
    both = engine_out("vllm", [one, pooled], experts=("a", "b"))
    assert (both["rounding_bound"], both["list_bound"]) == (None, 0.2)
    assert engine_out("vllm", [pooled], experts=("a", "b"))["coefficients"] is None


def test_black_boxes_answer_as_this_process_and_what_they_cannot_do_is_refused(
    vllm: StandIn, opened: Library, tmp_path: Path, web: TestClient
) -> None:
    names = ("base", *opened.bank.names)
    endpoints = {name: {"url": vllm.url, "model": name} for name in names}
    values = {"endpoints": endpoints, "top_k": N_VOCAB}
    served = assemble(
        opened,
        ServeSettings(default_tokens=12, apply_after=1, max_prompt_tokens=150),
        database=f"sqlite:///{tmp_path}/users.db",
        engine_of=choose_engine("openai", values).open,
    )
    with TestClient(
        make_app(served), base_url="http://localhost", raise_server_exceptions=False
    ) as client:
        assert client.get("/ready").status_code == 200
        for method in ("base", "portfolio", "output soup", "mixture"):
            theirs, own = (ask(c, EXACT[method]).json() for c in (client, web))
            assert theirs["choices"][0]["message"] == own["choices"][0]["message"]
            report = theirs["palate"]["engine"]
            assert (report["name"], report["is_exact"], report["notes"]) == ("openai", True, [])
        refused = ask(client, EXACT["soup"])
        assert refused.status_code == 400
        assert "cannot mix experts in one pass" in refused.json()["error"]["message"]
    engine = open_engine("openai", values, opened)
    known, sampling = {"preference": {"kind": 1.0}}, SamplingParams(temperature=0.0, max_tokens=9)
    outputs = [
        opened.generate("A cat", method="portfolio", sampling=sampling, engine=one, **known)
        for one in (engine, None)
    ]
    assert outputs[0].completion.tokens == outputs[1].completion.tokens
    engine.close()


def test_without_a_temperature_answers_are_sampled_at_the_librarys(
    client_of, opened: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(opened.__dict__, "sampling", SamplingParams(temperature=0.4))
    body = {"messages": [{"role": "user", "content": "a b"}], "seed": 3, "max_tokens": 16}
    body |= {"model": "palate", "palate": {"method": "base"}}
    client = client_of()

    def text(**more: object) -> str:
        answer = client.post("/v1/chat/completions", json={**body, **more})
        return answer.json()["choices"][0]["message"]["content"]

    assert text() == text(temperature=0.4)
    assert text() != text(temperature=1.0)
