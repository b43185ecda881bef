"""PRISM, PersonalLLM and PrefEval in the shape of their authors, with texts of our own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from palate.core.errors import InvalidInputError
from research.command_line import program
from research.preferences.published import main, personalllm_rows, prefeval_rows, prism_rows
from research.preferences.verdicts import read_verdicts


def run(*arguments: str) -> dict[str, Any]:
    found = CliRunner().invoke(program(main), [*arguments, "--json"], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return json.loads(found.output)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def model(turn: int, content: str, score: float | None, *, chosen: bool = False) -> dict[str, Any]:
    return {
        "turn": turn,
        "role": "model",
        "content": content,
        "score": score,
        "if_chosen": chosen,
        "model_name": "m",
        "within_turn_id": 0,
    }


def human(turn: int, content: str) -> dict[str, Any]:
    return {"turn": turn, "role": "user", "content": content, "score": None, "if_chosen": None}


def conversation(user: str, *history: dict[str, Any]) -> dict[str, Any]:
    return {"conversation_id": "c1", "user_id": user, "conversation_history": list(history)}


@pytest.fixture
def prism(tmp_path: Path) -> Path:
    talk = conversation(
        "user7",
        human(0, "Is rain good?"),
        model(0, "Yes.", 90, chosen=True),
        model(0, "No.", 10),
        model(0, "", 1),  # models sometimes said nothing
        human(1, "Why?"),
        model(1, "It waters plants.", 80, chosen=True),
        model(1, "It does.", 35),
        human(2, "Thanks."),
    )
    write_lines(tmp_path / "conversations.jsonl", [talk])
    survey = {"user_id": "user7", "system_string": "Be frank.", "self_description": "I farm."}
    write_lines(tmp_path / "survey.jsonl", [survey])
    return tmp_path


def test_prism_gives_ratings_along_the_chosen_answers(prism: Path, tmp_path: Path) -> None:
    out = tmp_path / "prism.out.jsonl"
    found = run("prism", str(prism), "--out", str(out))
    assert (found["n_rows"], found["n_users"], found["n_left_out"]) == (4, 1, 1)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["instruction"] for row in rows} == {"Be frank. I farm."}
    assert rows[2]["prompt"] == [
        {"role": "user", "content": "Is rain good?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Why?"},
    ]
    verdicts = read_verdicts(out)
    assert [(one.first, one.second) for one in verdicts] == [
        ("Yes.", "No."),
        ("It waters plants.", "It does."),
    ]


def personal_row(place: int, scores: dict[str, list[float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"prompt": f"Question {place}?", "prompt_id": place, "subset": "s"}
    for k in range(1, 9):
        row[f"response_{k}"] = f"Answer {k} to {place}."
        row[f"response_{k}_model"] = "m"
        for name, values in scores.items():
            row[f"response_{k}_{name}"] = values[k - 1]
    return row


def test_users_of_personalllm_choose_by_their_reward_models(tmp_path: Path) -> None:
    up = [float(k) for k in range(8)]
    scores = {"rm_a": up, "rm_b": up[::-1]}
    path = write_lines(tmp_path / "p.jsonl", [personal_row(n, scores) for n in range(30)])
    rows = list(personalllm_rows(path, n_users=40, seed=0))
    assert len(rows) == 40 * 30
    shares = []
    for user in dict.fromkeys(row["user_id"] for row in rows):
        own = [row for row in rows if row["user_id"] == user]
        shares.append(np.mean([row["chosen"][7] > row["rejected"][7] for row in own]))
    # the two models disagree on every pair: who weighs one more always follows it
    assert set(shares) <= {0.0, 1.0}
    assert 0.2 < np.mean(shares) < 0.8
    out = tmp_path / "out.jsonl"
    assert run("personalllm", str(path), "--out", str(out), "--users", "3")["n_users"] == 3
    assert len(read_verdicts(out)) == 90


def test_the_interactions_of_personalllm_are_taken_as_they_are(tmp_path: Path) -> None:
    row = {
        "person_id": 4,
        "person_weight": [1.0, 0.0],
        "prompt_1": "p",
        "response_1_a": "x",
        "response_1_b": "y",
        "chosen_1": "b",
        "prompt_2": None,
    }
    path = write_lines(tmp_path / "p.jsonl", [row])
    assert list(personalllm_rows(path, n_users=1, seed=0)) == [
        {"user_id": "person-4", "prompt": "p", "chosen": "y", "rejected": "x"}
    ]
    write_lines(path, [{**row, "chosen_1": "c"}])
    with pytest.raises(InvalidInputError, match="'chosen_1' 'c'; it is 'a' or 'b'"):
        list(personalllm_rows(path, n_users=1, seed=0))


def test_prefeval_prefers_the_option_that_follows_the_preference(tmp_path: Path) -> None:
    (tmp_path / "mcq_options").mkdir()
    entry = {
        "preference": '"I never fly."',
        "question": "How do I get to Rome?",
        "explanation": "Planes are the usual answer.",
        "violation_probability": 1.0,
        "classification_task_options": ["Take the train.", "Fly.", "Book a jet.", "Fly."],
    }
    topic = tmp_path / "mcq_options" / "travel.json"
    topic.write_text(json.dumps([entry]))
    first, *_ = prefeval_rows(tmp_path)
    assert first == {
        "user_id": "travel/0",
        "instruction": "I never fly.",
        "prompt": "How do I get to Rome?",
        "chosen": "Take the train.",
        "rejected": "Fly.",
    }
    out = tmp_path / "out.jsonl"
    assert run("prefeval", str(tmp_path), "--out", str(out))["n_rows"] == 3
    assert len(read_verdicts(out)) == 3


def test_what_is_not_as_published_is_refused_in_a_sentence(prism: Path, tmp_path: Path) -> None:
    write_lines(prism / "conversations.jsonl", [{"user_id": "u", "conversation_history": "x"}])
    with pytest.raises(InvalidInputError, match=r"Line 1 .* has no 'conversation_history' of type"):
        list(prism_rows(prism))
    with pytest.raises(InvalidInputError, match="conversations"):
        list(prism_rows(tmp_path / "absent"))
    with pytest.raises(InvalidInputError, match=r"no mcq_options/TOPIC\.json"):
        list(prefeval_rows(tmp_path))
    path = write_lines(tmp_path / "p.jsonl", [{"prompt": "p", "response_1": "x"}])
    with pytest.raises(InvalidInputError, match="has no scores such as"):
        list(personalllm_rows(path, n_users=1, seed=0))
    write_lines(path, [personal_row(0, {"rm": [1.0] * 8}) | {"response_3_rm": None}])
    with pytest.raises(InvalidInputError, match="has the 'response_3_rm' None"):
        list(personalllm_rows(path, n_users=1, seed=0))
