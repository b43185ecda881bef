"""Users over HTTP: made, taught, shown, reset, exported, erased."""

from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from starlette.testclient import TestClient

from palate.serve.believed import SETTLED
from palate.store import erase
from palate.store.erase import clear_erased

TALK = [{"role": "user", "content": "Tell me about rain."}]
CHAT = "/v1/chat/completions"


def ask(client: TestClient, user: str, **palate: Any) -> dict[str, Any]:
    body = {"model": "palate", "messages": TALK, "seed": 9, "palate": {"user": user, **palate}}
    response = client.post(CHAT, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def question(client: TestClient, user: str, seed: int = 0) -> dict[str, Any]:
    body = {"user": user, "messages": TALK, "seed": seed, "max_tokens": 10}
    response = client.post("/v1/questions", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def say(client: TestClient, response: str, **verdict: Any) -> dict[str, Any]:
    found = client.post("/v1/feedback", json={"response": response, **verdict})
    assert found.status_code == 200, found.text
    return found.json()


def test_a_stated_preference_is_used_until_feedback_is(web: TestClient) -> None:
    made = web.post("/v1/users", json={"user": "pia", "preference": {"kind": 1.0}})
    assert made.status_code == 201
    assert web.post("/v1/users", json={"user": "pia"}).status_code == 409
    assert ask(web, "pia")["palate"]["coefficients"]["kind"] == pytest.approx(1.0)
    web.patch("/v1/users/pia", json={"preference": {"short": 1.0}})
    assert ask(web, "pia")["palate"]["coefficients"]["short"] == pytest.approx(1.0)
    web.patch("/v1/users/pia", json={"preference": None})
    assert ask(web, "pia")["palate"]["method"] == "portfolio"  # with nothing known
    assert web.patch("/v1/users/nobody", json={"preference": None}).status_code == 404
    unknown = web.patch("/v1/users/pia", json={"preference": {"colour": 1.0}})
    assert unknown.status_code == 400


def test_a_belief_is_observed_first_then_applied_and_one_call_resets_it(web: TestClient) -> None:
    before = ask(web, "bo")
    assert before["palate"]["learning"] == "nothing"
    states: list[str] = []
    for seed in range(4):
        asked = question(web, "bo", seed)
        verdict = say(web, asked["response"], kind="comparison", preferred=0)
        assert verdict["is_new"]
        assert verdict["belief"]["n_feedback"] == seed + 1
        states.append(ask(web, "bo")["palate"]["learning"])
    assert states == ["observing", "observing", "applied", "applied"]
    after = ask(web, "bo")
    assert after["palate"]["method"] == "prompted-soup"
    shown = web.get("/v1/users/bo").json()["belief"]
    assert after["palate"]["coefficients"] == pytest.approx(shown["soup"]["coefficients"])
    assert shown["soup"]["kl"] <= shown["soup"]["budget"] + 1e-9
    for row in [*shown["experts"], *shown["objectives"]]:
        assert row["low"] < row["mean"] < row["high"]
    fresh = web.post("/v1/users/bo/reset", json={}).json()
    assert fresh["belief"]["n_feedback"] == 0
    again = ask(web, "bo")
    assert again["choices"][0]["message"] == before["choices"][0]["message"]
    assert len(web.get("/v1/users/bo/export").json()["feedback"]) == 4  # the log is whole


def test_what_a_user_would_get_now_follows_a_stated_preference(web: TestClient) -> None:
    nobody = question(web, "new")["now"]
    web.post("/v1/users", json={"user": "kim", "preference": {"kind": 1.0}})
    stated = question(web, "kim")["now"]
    assert stated != nobody
    web.patch("/v1/users/kim", json={"preference": None})
    assert question(web, "kim")["now"] == nobody


def test_the_features_of_a_question_are_what_the_experts_say_of_its_answers(
    web: TestClient,
) -> None:
    asked = question(web, "fay", seed=4)
    export = web.get("/v1/users/fay/export").json()
    (kept,) = [row for row in export["responses"] if row["id"] == asked["response"]]
    assert kept["shown"] == [answer["text"] for answer in asked["answers"]]
    said = web.post(
        "/v1/feedback",
        json={"response": asked["response"], "kind": "comparison", "preferred": "tie"},
    )
    assert said.json()["belief"]["n_feedback"] == 1
    features = np.array(kept["features"])
    assert features.shape == (2, 3)
    item = web.get("/v1/users/fay/export").json()["feedback"][0]
    assert np.allclose(item["features"], features[0] - features[1])
    assert item["label"] == 0.5


def test_the_same_feedback_twice_is_the_same_and_other_under_its_key_is_refused(
    web: TestClient,
) -> None:
    response = ask(web, "kim")["palate"]["response"]
    thumbs = {"response": response, "kind": "thumbs", "thumbs": "up"}
    headers = {"idempotency-key": "once"}
    first = web.post("/v1/feedback", json=thumbs, headers=headers)
    second = web.post("/v1/feedback", json={**thumbs, "key": "once"})
    assert (first.json()["is_new"], second.json()["is_new"]) == (True, False)
    assert first.json()["belief"] == second.json()["belief"]
    other = web.post("/v1/feedback", json={**thumbs, "thumbs": "down"}, headers=headers)
    assert other.status_code == 409
    assert other.json()["error"]["code"] == "key_reused"


def test_ratings_count_by_their_differences_and_thumbs_by_themselves(web: TestClient) -> None:
    two = web.post(
        CHAT,
        json={"model": "palate", "messages": TALK, "n": 2, "seed": 3, "palate": {"user": "ray"}},
    ).json()["palate"]["response"]
    first = say(web, two, kind="rating", rating=5.0, answer=0)
    assert all(row["mean"] == 0.0 for row in first["belief"]["experts"])
    second = say(web, two, kind="rating", rating=1.0, answer=1)
    assert any(row["mean"] != 0.0 for row in second["belief"]["experts"])
    missing = web.post(
        "/v1/feedback", json={"response": two, "kind": "rating", "rating": 1.0, "answer": 2}
    )
    assert missing.status_code == 400


def test_two_responses_to_one_prompt_can_be_compared(web: TestClient) -> None:
    first = ask(web, "two", preference={"kind": 1.0})["palate"]["response"]
    second = ask(web, "two", preference={"short": 1.0})["palate"]["response"]
    verdict = {"kind": "comparison", "preferred": 1, "against": second}
    assert say(web, first, **verdict)["belief"]["n_feedback"] == 1
    own = web.post("/v1/feedback", json={"response": first, **verdict, "against": first})
    assert own.status_code == 400
    someone = ask(web, "someone")["palate"]["response"]
    other = web.post("/v1/feedback", json={"response": first, **verdict, "against": someone})
    assert other.status_code == 400


def test_feedback_needs_a_response_that_was_shown_to_a_named_user(web: TestClient) -> None:
    body = {"model": "palate", "messages": TALK}
    nobody = web.post(CHAT, json=body).json()
    assert nobody["palate"]["response"] is None
    thumbs = {"response": nobody["id"], "kind": "thumbs", "thumbs": "up"}
    assert web.post("/v1/feedback", json=thumbs).status_code == 404
    for wrong in (
        {"kind": "comparison"},
        {"kind": "comparison", "preferred": 2},
        {"kind": "thumbs", "thumbs": "up", "rating": 3},
        {"kind": "rating"},
        {"kind": "comparison", "preferred": 0, "answer": 1},
        {"kind": "thumbs", "thumbs": "up", "against": nobody["id"]},
    ):
        found = web.post("/v1/feedback", json={"response": nobody["id"], **wrong})
        assert found.status_code == 400, wrong


def test_erasing_leaves_a_receipt_and_nothing_else(web: TestClient) -> None:
    response = ask(web, "gone")["palate"]["response"]
    say(web, response, kind="thumbs", thumbs="down")
    receipt = web.delete("/v1/users/gone").json()
    assert (receipt["n_feedback"], receipt["n_responses"]) == (1, 1)
    assert "gone" not in str(receipt)
    assert web.get("/v1/users/gone").status_code == 404
    assert web.delete("/v1/users/gone").status_code == 404
    thumbs = {"response": response, "kind": "thumbs", "thumbs": "up"}
    assert web.post("/v1/feedback", json=thumbs).status_code == 404


def test_a_receipt_can_be_asked_for_until_nothing_remains(
    guarded: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erase, "AT_ONCE_BYTES", 0)
    admin, other, plain = (
        {"authorization": f"Bearer {guarded.app.state.keys[name]}"}  # type: ignore[attr-defined]
        for name in ("admin", "other", "user")
    )
    guarded.post("/v1/users", json={"user": "gone"}, headers=admin)
    receipt = guarded.delete("/v1/users/gone", headers=admin).json()
    address = f"/v1/receipts/{receipt['id']}"
    assert guarded.get(address, headers=admin).json() == receipt
    assert not receipt["is_cleared"]
    assert "until" in receipt["remains"]
    clear_erased(guarded.app.state.served.database)  # type: ignore[attr-defined]
    assert guarded.get(address, headers=admin).json() == {
        **receipt,
        "is_cleared": True,
        "remains": "",
    }
    assert guarded.get(address, headers=other).status_code == 404
    assert guarded.get(address, headers=plain).status_code == 403
    assert guarded.get("/v1/receipts/%00", headers=admin).status_code == 400


def test_the_list_goes_page_by_page(web: TestClient) -> None:
    for place in range(5):
        web.post("/v1/users", json={"user": f"list-{place}"})
    seen: list[str] = []
    after: int | None = 0
    while after is not None:
        page = web.get("/v1/users", params={"limit": 2, "after": after}).json()
        seen += [row["user"] for row in page["users"]]
        after = page["next_after"]
    assert [name for name in seen if name.startswith("list-")] == [f"list-{k}" for k in range(5)]
    assert len(seen) == len(set(seen))
    assert web.get("/v1/users", params={"limit": 0}).status_code == 400


def test_words_are_a_belief_that_the_user_can_take_back(web: TestClient) -> None:
    web.post("/v1/users", json={"user": "ida"})
    told = web.patch("/v1/users/ida", json={"instruction": "  Be brief, please.  "})
    assert told.status_code == 200, told.text
    assert told.json()["instruction"] == "Be brief, please."
    means = {row["name"]: row["mean"] for row in told.json()["belief"]["objectives"]}
    assert means["short"] > 0.3 > max(means["kind"], means["plain"])
    assert told.json()["belief"]["n_feedback"] == 0
    assert ask(web, "ida")["palate"]["coefficients"]["short"] > 0
    back = web.patch("/v1/users/ida", json={"instruction": " "}).json()
    assert back["instruction"] is None
    assert max(abs(row["mean"]) for row in back["belief"]["objectives"]) < 1e-9


def test_words_that_cannot_be_kept_are_refused(web: TestClient) -> None:
    web.post("/v1/users", json={"user": "ida2"})
    for body in ({"instruction": "a" * 100_000}, {"instruction": "a\0b"}, {}):
        assert web.patch("/v1/users/ida2", json=body).status_code == 400, body
    assert web.patch("/v1/users/nobody", json={"instruction": "short"}).status_code == 404


def test_a_withdrawn_verdict_leaves_the_belief_as_it_was(web: TestClient) -> None:
    body = {"model": "palate", "messages": TALK, "n": 2, "seed": 3, "palate": {"user": "wil"}}
    response = web.post(CHAT, json=body).json()["palate"]["response"]
    before = say(web, response, kind="thumbs", thumbs="up", answer=0)["belief"]
    said = say(web, response, kind="thumbs", thumbs="down", answer=1)
    assert said["belief"] != before
    address = f"/v1/users/wil/feedback/{quote(said['key'], safe='')}"
    for _ in range(2):  # again changes nothing
        after = web.delete(address)
        assert after.status_code == 200
        assert after.json()["belief"] == before
    assert say(web, response, kind="thumbs", thumbs="down", answer=1)["is_new"] is False
    log = web.get("/v1/users/wil/export").json()["feedback"]
    assert [item["kind"] for item in log] == ["thumbs", "thumbs", "withdrawal"]


def test_what_cannot_be_withdrawn_is_said(web: TestClient) -> None:
    ask(web, "wes")
    unknown = web.delete("/v1/users/wes/feedback/none")
    assert unknown.status_code == 400
    assert "has no feedback 'none'" in unknown.json()["error"]["message"]
    nobody = web.delete("/v1/users/nobody-at-all/feedback/none")
    assert nobody.status_code == 404


def test_a_belief_says_how_much_is_unknown_and_whether_that_is_little(web: TestClient) -> None:
    response = ask(web, "sam")["palate"]["response"]
    first = web.get("/v1/users/sam").json()["belief"]
    assert first["unknown_share"] == pytest.approx(1.0)
    assert not first["is_settled"]
    second = say(web, response, kind="thumbs", thumbs="up")["belief"]
    assert second["unknown_share"] < 1.0
    assert second["is_settled"] == (second["unknown_share"] <= SETTLED)
