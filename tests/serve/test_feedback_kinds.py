"""Edits, copies, comments, ratings on any scale, questions in words, propensities."""

import math
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from palate.core.plan import reference_plan
from palate.engine.logprobs import Scored
from palate.library.features import log_probs
from palate.library.library import Library
from palate.models.chat import encode_prompt

TALK = [{"role": "user", "content": "Tell me about rain."}]


def ask(client: TestClient, user: str, **body: Any) -> dict[str, Any]:
    whole = {"model": "palate", "messages": TALK, "seed": 9, "palate": {"user": user}, **body}
    response = client.post("/v1/chat/completions", json=whole)
    assert response.status_code == 200, response.text
    return response.json()


def say(client: TestClient, response: str, **verdict: Any) -> dict[str, Any]:
    found = client.post("/v1/feedback", json={"response": response, **verdict})
    assert found.status_code == 200, found.text
    return found.json()


def refusal(client: TestClient, response: str, **verdict: Any) -> tuple[int, str]:
    found = client.post("/v1/feedback", json={"response": response, **verdict})
    return found.status_code, found.json()["error"]["message"]


def exported(client: TestClient, user: str) -> dict[str, Any]:
    return client.get(f"/v1/users/{user}/export").json()


def moved(belief: dict[str, Any]) -> float:
    return max(abs(row["mean"]) for row in belief["experts"])


def test_an_edit_is_preferred_to_the_answer_that_it_corrects(web: TestClient) -> None:
    response = ask(web, "eve")["palate"]["response"]
    said = say(web, response, kind="edit", text="Rain is water.", answer=0)
    assert said["key"] == f"{response}/edit/0"
    assert moved(said["belief"]) > 0
    (item,) = exported(web, "eve")["feedback"]
    assert (item["kind"], item["label"]) == ("comparison", 1.0)
    (row,) = exported(web, "eve")["responses"]
    own = say(web, response, kind="thumbs", thumbs="up")  # features of the answer are there
    assert own["belief"]["n_feedback"] == 2
    assert np.array(item["features"]).shape == np.array(row["features"][0]).shape
    status, message = refusal(web, response, kind="edit", text=row["shown"][0], key="new")
    assert status == 400
    assert "should have been" in message


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        ({"kind": "edit"}, "an edit needs 'text' and no other verdict"),
        ({"kind": "edit", "text": " "}, "the text of the edit is empty or over 20000 characters"),
        ({"kind": "edit", "text": "x" * 100_000}, "over 20000 characters"),
        ({"kind": "edit", "text": "word " * 3_000}, "more than the base can read; send"),
        ({"kind": "edit", "text": "Water.", "answer": 3}, "has no answer 3"),
        ({"kind": "comment", "text": ""}, "the text of the comment is empty"),
        ({"kind": "comment", "text": "y" * 5_000}, "over 2000 characters"),
        ({"kind": "copy", "thumbs": "up"}, "a copy needs no verdict"),
        ({"kind": "rating", "rating": 1e9}, "less than or equal to 1000000"),
    ],
)
def test_feedback_that_says_nothing_is_refused_in_a_sentence(
    web: TestClient, verdict: dict[str, Any], sentence: str
) -> None:
    response = ask(web, "rex")["palate"]["response"]
    n_before = len(exported(web, "rex")["feedback"])
    status, message = refusal(web, response, **verdict)
    assert status == 400
    assert sentence in message
    assert len(exported(web, "rex")["feedback"]) == n_before


def test_a_rating_that_is_no_number_is_refused(web: TestClient) -> None:
    response = ask(web, "rex")["palate"]["response"]
    body = f'{{"response": "{response}", "kind": "rating", "rating": NaN}}'
    headers = {"content-type": "application/json"}
    found = web.post("/v1/feedback", content=body, headers=headers)
    assert found.status_code == 400
    assert "rating" in found.json()["error"]["message"]


def test_ratings_up_to_1000_move_a_belief_as_ratings_up_to_5_do(web: TestClient) -> None:
    beliefs = []
    for user, factor in (("five", 1.0), ("thousand", 200.0)):
        two = ask(web, user, n=2)["palate"]["response"]
        say(web, two, kind="rating", rating=5.0 * factor, answer=0)
        beliefs.append(say(web, two, kind="rating", rating=1.0 * factor, answer=1)["belief"])
    for one, other in zip(beliefs[0]["experts"], beliefs[1]["experts"], strict=True):
        assert one["mean"] == pytest.approx(other["mean"], abs=1e-9)


def test_a_copy_moves_a_belief_less_than_a_thumb_and_asking_again_the_other_way(
    web: TestClient,
) -> None:
    beliefs = {}
    for kind, extra in (("thumbs", {"thumbs": "up"}), ("copy", {}), ("regenerate", {})):
        response = ask(web, f"weak-{kind}")["palate"]["response"]
        experts = say(web, response, kind=kind, **extra)["belief"]["experts"]
        beliefs[kind] = np.array([row["mean"] for row in experts])
    assert 0 < np.linalg.norm(beliefs["copy"]) < 0.6 * np.linalg.norm(beliefs["thumbs"])
    assert beliefs["copy"] @ beliefs["thumbs"] > 0 > beliefs["regenerate"] @ beliefs["thumbs"]


def test_a_comment_adds_to_the_users_words(web: TestClient) -> None:
    response = ask(web, "cora")["palate"]["response"]
    first = say(web, response, kind="comment", text="Please be brief.")
    assert say(web, response, kind="comment", text="Please be brief.")["is_new"] is False
    assert say(web, response, kind="comment", text="And kind.")["is_new"]
    assert first["belief"]["n_feedback"] == 0
    kinds = [item["kind"] for item in exported(web, "cora")["feedback"]]
    assert kinds == ["comment", "comment"]


def test_a_question_may_be_in_words_and_is_asked_once(web: TestClient) -> None:
    body = {"user": "wanda", "messages": TALK, "seed": 0, "max_tokens": 8}
    plain = web.post("/v1/questions", json=body).json()
    assert plain["kind"] == "answers"
    asked = []
    for seed in range(4):
        found = web.post("/v1/questions", json={**body, "seed": seed, "words": True}).json()
        if found["kind"] == "words":
            asked.append(tuple(answer["source"] for answer in found["answers"]))
            assert found["information_nats"] <= math.log(2)
            assert found["now"] not in [answer["text"] for answer in found["answers"]]
            belief = say(web, found["response"], kind="comparison", preferred=0)["belief"]
            means = {row["name"]: row["mean"] for row in belief["objectives"]}
            assert means[found["answers"][0]["source"]] > 0
            status, _ = refusal(web, found["response"], kind="edit", text="Other words.")
            assert status == 400
    assert asked
    assert len(set(asked)) == len(asked)


def test_the_probability_of_a_shown_answer_is_that_of_its_tokens(
    web: TestClient, opened: Library
) -> None:
    kept: list[float] = []
    for temperature in (1.0, 0.6):
        user = f"prop-{temperature}"
        ask(web, user, temperature=temperature, palate={"user": user, "method": "base"})
        (row,) = exported(web, user)["responses"]
        kept += row["log_probs"]
        item = Scored(tuple(encode_prompt(opened.base, row["prompt"])), tuple(row["tokens"][0]))
        plan = reference_plan(n_experts=opened.bank.n_experts)
        at_one = float(log_probs(opened.base, opened.bank, plan=plan, items=[item])[0])
        is_same = kept[-1] == pytest.approx(at_one, abs=1e-3)
        assert is_same == (temperature == 1.0)
    assert max(kept) < 0


@pytest.mark.parametrize("body", [{"temperature": 0.0}, {"top_k": 5}, {"logit_bias": {"3": 1.0}}])
def test_where_the_probability_is_not_known_none_is_kept(
    web: TestClient, body: dict[str, Any]
) -> None:
    user = f"none-{next(iter(body))}"
    ask(web, user, palate={"user": user, "method": "base"}, **body)
    (row,) = exported(web, user)["responses"]
    assert row["log_probs"] is None
