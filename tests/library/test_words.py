"""A user's own words: the belief they come to, what changes nothing, and what is refused."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.core.types import Belief, Objective
from palate.library.folder import LibraryFolder
from palate.library.shipped import library_folder
from palate.library.words import Reading, case_chances, read_words

OBJECTIVES = (
    Objective("elementary", "Easy words.", "Explain in very simple words.", opposite="expert"),
    Objective("expert", "Precise language.", "Use technical terms.", opposite="elementary"),
    Objective(
        "concise", "Short answers.", "Be brief.", opposite="Give a long and detailed answer."
    ),
    Objective("safe", "No dangerous advice."),
)


def library(*objectives: Objective, anchors: Any = None) -> Any:
    names = tuple(objective.name for objective in objectives)
    rows = np.eye(len(names)) if anchors is None else np.array(anchors)
    experts = names if anchors is None else tuple(f"expert {k}" for k in range(len(rows)))
    manifest = SimpleNamespace(objectives=objectives, expert_names=experts)
    return SimpleNamespace(manifest=manifest, anchors=rows)


@pytest.fixture(scope="module")
def read() -> Any:
    def read(text: str) -> Reading:
        return read_words(library(*OBJECTIVES), text)

    return read


def test_an_instruction_moves_its_objective_and_the_opposite_the_other_way(read: Any) -> None:
    reading = read("Use simple words, please.")
    assert reading.objectives["elementary"].mean > 0.4
    assert reading.objectives["expert"].mean == pytest.approx(
        -reading.objectives["elementary"].mean
    )
    assert reading.objectives["elementary"].clause == "Use simple words"
    assert reading.objectives["elementary"].sd < 1
    assert not reading.is_empty


def test_a_negation_turns_a_clause_round(read: Any) -> None:
    plain, negated = read("Use technical terms."), read("Do not use technical terms.")
    assert plain.objectives["expert"].mean > 0.4
    assert negated.objectives["expert"].mean == pytest.approx(
        -plain.objectives["expert"].mean, abs=0.05
    )


def test_a_text_about_something_else_leaves_the_prior(read: Any) -> None:
    reading = read("The meeting is on Thursday at noon.")
    assert reading.is_empty
    for leaning in reading.objectives.values():
        assert abs(leaning.mean) < 0.3
        assert leaning.clause == ""
    prior = Belief(np.zeros(4), 4.0 * np.eye(4))
    belief = reading.belief(prior)
    assert np.abs(belief.mean).max() < 0.6
    assert np.diag(belief.covariance).min() > 3.0


def test_an_objective_without_an_opposite_stays_at_the_prior(read: Any) -> None:
    leaning = read("Never give me dangerous advice.").objectives["safe"]
    assert (leaning.mean, leaning.sd, leaning.clause) == (0.0, 1.0, "")


def test_contradictions_are_less_certain_than_either_alone(read: Any) -> None:
    one = read("Be brief.").objectives["concise"]
    both = read("Be brief. Give a long and detailed answer.").objectives["concise"]
    assert abs(both.mean) < one.mean
    assert both.sd > one.sd


def test_the_belief_is_in_units_of_the_prior(read: Any) -> None:
    reading = read("Use simple words.")
    prior = Belief(np.full(4, 0.5), 9.0 * np.eye(4), gain=2.0)
    belief = reading.belief(prior)
    mean, sd = reading.experts["elementary"].mean, reading.experts["elementary"].sd
    assert belief.mean[0] == pytest.approx(0.5 + 3.0 * mean)
    assert belief.covariance[0, 0] == pytest.approx(9.0 * sd**2)
    assert (belief.n_observations, belief.gain) == (1, 2.0)


def test_experts_of_mixed_anchors_share_it() -> None:
    pair = OBJECTIVES[:2]
    reading = read_words(library(*pair, anchors=[[0.5, 0.5], [1.0, 0.0]]), "Use simple words.")
    elementary, expert = (reading.objectives[o.name].mean for o in pair)
    coefficients = np.array([leaning.mean for leaning in reading.experts.values()])
    assert np.array([[0.5, 0.5], [1.0, 0.0]]).T @ coefficients == pytest.approx(
        [elementary, expert]
    )


def test_a_clause_speaks_of_one_pole_at_most() -> None:
    cases, clauses = case_chances("Be brief. Use technical terms.", OBJECTIVES)
    assert cases.sum(axis=1) == pytest.approx(np.ones(4))
    assert cases[1] == pytest.approx(cases[0][::-1])  # each other's opposite
    assert tuple(cases[3]) == (0.0, 1.0, 0.0)
    assert clauses == ["Use technical terms", "Use technical terms", "Be brief", ""]
    asked = cases[:, [0, 2]].sum(axis=1)
    assert asked[1] + asked[2] < 2.0
    one, _ = case_chances("Be brief", OBJECTIVES)
    assert one[1, [0, 2]].sum() + one[2, [0, 2]].sum() < 1.0


def test_phrases_are_sentences_of_their_pole() -> None:
    text = "I have to catch a train in five minutes."
    phrases = "I am in a hurry; my train leaves soon; I must go in a minute"
    with_phrases = (*OBJECTIVES[:2], replace(OBJECTIVES[2], phrases=phrases))
    plain, better = (
        read_words(library(*objectives), text).objectives["concise"].mean
        for objectives in (OBJECTIVES, with_phrases)
    )
    assert better > plain + 0.1


def test_the_shipped_phrases_are_none_of_the_sentences_that_are_measured(
    project_root: Path,
) -> None:
    objectives = LibraryFolder.open(library_folder("smollm2-135m")).manifest.objectives
    phrases = {one.strip().lower() for o in objectives for one in o.phrases.split(";")}
    assert len(phrases) >= 60
    said = [
        *(project_root / "research/preferences/sentences.jsonl").read_text().splitlines(),
        *(project_root / "research/board/users.jsonl").read_text().splitlines(),
    ]
    texts = {
        clause.strip().lower()
        for row in map(json.loads, said)
        for text in (row.get("text"), *row.get("wordings", {}).values())
        for clause in re.split(r"[.;:!?,]", text or "")
    }
    assert phrases & texts == {""} & phrases


@pytest.mark.parametrize(
    ("text", "objectives", "sentence"),
    [
        ("  ", OBJECTIVES, "text is empty"),
        ("a" * 100_000, OBJECTIVES, "100,000 characters; give at most 2,000"),
        ("Be brief.", OBJECTIVES[3:], "give 'opposite' to 'safe'"),
    ],
)
def test_what_cannot_be_read_is_refused(
    text: str, objectives: tuple[Objective, ...], sentence: str
) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        read_words(library(*objectives), text)
