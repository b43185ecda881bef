"""Best of n over HTTP: several candidates are drawn, one is kept, and everything speaks of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from palate.core.decision import Known
from palate.core.protocols import Request, SamplingParams
from palate.library.candidates import candidate_requests
from palate.library.generate import answer_seed
from palate.library.library import Library
from palate.serve.app import make_app
from palate.serve.assemble import assemble
from palate.serve.settings import ServeSettings

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TALK = [{"role": "user", "content": "Why is the sky blue?"}]
WANTED = {"kind": 0.5, "short": -0.5, "plain": 1.0}
BEST = {"coefficients": WANTED, "method": "soup", "n_candidates": 3}


def ask(client: TestClient, palate: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"model": "palate", "messages": TALK, "seed": 7, "max_tokens": 12, **more}
    found = client.post(CHAT, json={**body, "palate": palate})
    assert found.status_code == 200, found.text
    return found.json()


def chunks(client: TestClient, address: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    found = client.post(address, json={"model": "palate", "seed": 7, "stream": True, **body})
    assert found.status_code == 200, found.text
    lines = [line.removeprefix("data: ") for line in found.text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_the_kept_answer_is_the_one_that_python_keeps(web: TestClient, opened: Library) -> None:
    own = opened.generate(
        TALK,
        coefficients=WANTED,
        method="soup",
        n_candidates=3,
        seed=7,
        sampling=SamplingParams(max_tokens=12),
    )
    found = ask(web, BEST)
    assert found["choices"][0]["message"]["content"] == own.text
    said = found["palate"]
    assert said["lead"] == pytest.approx(own.lead, abs=1e-4)
    assert (said["n_candidates"], said["n_passes"], said["is_waiting"]) == (3, 3.0, False)
    assert own.lead > 0


def test_one_candidate_is_the_answer_of_python_too(web: TestClient, opened: Library) -> None:
    own = opened.generate(
        TALK, coefficients=WANTED, method="soup", seed=7, sampling=SamplingParams(max_tokens=12)
    )
    found = ask(web, {"coefficients": WANTED, "method": "soup"}, n=2)
    assert found["choices"][0]["message"]["content"] == own.text
    assert found["palate"]["lead"] is None
    assert found["palate"]["n_candidates"] == 1


def test_all_candidates_count_as_used(web: TestClient) -> None:
    alone = ask(web, {**BEST, "n_candidates": 1}, stop=None)
    many = ask(web, BEST, n=2)
    assert alone["usage"]["completion_tokens"] <= 12
    assert 12 < many["usage"]["completion_tokens"] <= 2 * 3 * 12
    assert len(many["choices"]) == 2
    assert many["usage"]["prompt_tokens"] == alone["usage"]["prompt_tokens"]


@pytest.mark.parametrize("n", [1, 2])
def test_a_stream_waits_says_so_and_gives_the_kept_text(web: TestClient, n: int) -> None:
    whole = ask(web, BEST, n=n)
    found = chunks(web, CHAT, {"messages": TALK, "max_tokens": 12, "palate": BEST, "n": n})
    assert found[0]["palate"]["is_waiting"]
    assert found[0]["palate"]["lead"] is None
    assert not found[0]["choices"][0]["delta"]["content"]
    texts = [""] * n
    for chunk in found:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta"].get("content") or ""
    assert texts == [choice["message"]["content"] for choice in whole["choices"]]
    assert not found[-1]["palate"]["is_waiting"]
    assert found[-1]["palate"]["lead"] == pytest.approx(whole["palate"]["lead"], abs=1e-4)


def test_a_completions_stream_waits_too(web: TestClient) -> None:
    body = {"prompt": "Once", "max_tokens": 12, "palate": BEST, "logprobs": 0}
    found = chunks(web, COMPLETIONS, body)
    assert found[0]["palate"]["is_waiting"]
    text = "".join(choice["text"] for chunk in found for choice in chunk["choices"])
    whole = web.post(COMPLETIONS, json={"model": "palate", "seed": 7, **body}).json()
    assert text == whole["choices"][0]["text"]


def test_without_candidates_nothing_waits(web: TestClient) -> None:
    found = chunks(web, CHAT, {"messages": TALK, "max_tokens": 3})
    assert not found[0]["palate"]["is_waiting"]


def test_log_probabilities_and_explanations_are_of_the_kept_one(web: TestClient) -> None:
    found = ask(web, {**BEST, "explain": True}, logprobs=True)["choices"][0]
    said = [token["logprob"] for token in found["logprobs"]["content"]]
    story = [token["log_prob"] for token in found["palate"]["tokens"]]
    assert story == pytest.approx(said)
    text = "".join(token["text"] for token in found["palate"]["tokens"])
    assert text.startswith(found["message"]["content"])  # a broken character may follow


def test_feedback_and_the_record_speak_of_the_kept_one(web: TestClient) -> None:
    found = ask(web, {**BEST, "user": "bea"})
    (row,) = web.get("/v1/users/bea/export").json()["responses"]
    assert row["shown"] == [found["choices"][0]["message"]["content"]]
    thumbs = {"response": found["palate"]["response"], "kind": "thumbs", "thumbs": "up"}
    assert web.post("/v1/feedback", json=thumbs).json()["is_new"]


def test_a_preference_ranks_by_the_librarys_rewards(
    web: TestClient, tiny_full_library: Path, tmp_path: Path
) -> None:
    palate = {"preference": {"short": 1.0}, "method": "soup", "n_candidates": 4}
    refused = web.post(CHAT, json={"model": "palate", "messages": TALK, "palate": palate})
    assert refused.status_code == 400  # before anything is drawn
    assert "answers cannot be ranked" in refused.json()["error"]["message"]
    library = Library.load(tiny_full_library)
    served = assemble(library, ServeSettings(), database=f"sqlite:///{tmp_path}/users.db")
    with TestClient(make_app(served), base_url="http://localhost") as client:
        best = ask(client, palate, max_tokens=8)
        draws = {ask(client, palate, max_tokens=8, seed=k)["palate"]["lead"] for k in range(3)}
        by_method = ask(client, {"preference": {"short": 1.0}, "method": "best-of-n"})
    decision = library.decide(TALK, Known(preference={"short": 1.0}), method="soup", n_candidates=4)
    request = Request(
        library.format(TALK), decision.plan, SamplingParams(max_tokens=8), answer_seed(7, place=0)
    )
    drawn = library.engine.generate(candidate_requests(request, n=4))
    texts = [completion.text for completion in drawn]
    place = library.manifest.objective_names.index("short")
    scores = library.rewards.score([TALK[0]["content"]] * 4, texts)[:, place]
    assert best["choices"][0]["message"]["content"] == texts[int(scores.argmax())]
    ordered = sorted(scores)
    assert best["palate"]["lead"] == pytest.approx(ordered[-1] - ordered[-2])
    assert min(draws) >= 0
    assert by_method["palate"]["n_candidates"] == 4
    assert (
        by_method["palate"]["predicted_utility"]["low"]
        <= by_method["palate"]["predicted_utility"]["estimate"]
    )


@pytest.mark.parametrize("n", [0, -1, 17, 10**20])
def test_numbers_out_of_range_are_refused_in_the_librarys_sentence(web: TestClient, n: int) -> None:
    body = {"model": "palate", "messages": TALK, "palate": {**BEST, "n_candidates": n}}
    found = web.post(CHAT, json=body)
    assert found.status_code == 400
    message = f"The number of candidates {n} is out of range; use 1 to 16."
    assert found.json()["error"]["message"] == message


def test_candidates_of_nobody_known_cannot_be_ranked(web: TestClient) -> None:
    body = {"model": "palate", "messages": TALK, "palate": {"n_candidates": 2}}
    found = web.post(CHAT, json=body)
    assert found.status_code == 400
    assert "ranks answers by the user's preference" in found.json()["error"]["message"]


def test_candidates_that_are_late_are_let_go_of(client_of: Callable[..., TestClient]) -> None:
    client = client_of(deadline_seconds=0.001)
    body = {"model": "palate", "messages": TALK, "max_tokens": 64, "palate": BEST}
    assert client.post(CHAT, json=body).status_code == 504
