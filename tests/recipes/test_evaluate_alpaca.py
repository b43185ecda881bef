"""A library answers AlpacaEval's instructions in one person's taste."""

import json

import pytest

from palate.core.errors import InvalidInputError, InvalidPreferenceError
from palate.core.protocols import Sampling
from palate.recipes.answer import answer
from palate.recipes.evaluate_alpaca import AlpacaJob, answer_instructions
from palate.recipes.opened import open_library
from palate.recipes.ways import Asked

KIND = Asked(way="soup", preference={"kind": 0.5, "short": 0.5}, strength=2.0)


@pytest.fixture(scope="module")
def opened(tiny_library):
    return open_library(tiny_library)


@pytest.fixture
def job(tmp_path):
    rows = [{"instruction": f"a b {k}", "input": "c" * (k % 2)} for k in range(70)]
    path = tmp_path / "instructions.json"
    path.write_text(json.dumps(rows))
    return AlpacaJob(path, tmp_path / "outputs.json", Sampling(max_tokens=4), generator="me")


def test_every_instruction_is_answered_once_in_order(opened, job):
    found = answer_instructions(opened, KIND, job)
    rows = json.loads(job.out.read_text())
    assert [row["instruction"] for row in rows] == [f"a b {k}" for k in range(70)]
    assert {row["generator"] for row in rows} == {"me"}
    assert found.n_answers == 70
    assert found.coefficients == pytest.approx({"kind": 1.0, "short": 1.0, "plain": 0.0})


def test_greedy_answers_are_those_of_palate_answer(opened, job):
    greedy = AlpacaJob(job.instructions, job.out, Sampling(temperature=0.0, max_tokens=4))
    answer_instructions(opened, KIND, greedy)
    rows = json.loads(job.out.read_text())
    for place, prompt in ((0, "a b 0"), (1, "a b 1\n\nc"), (69, "a b 69\n\nc")):
        expected = answer(opened, prompt, KIND, sampling=greedy.sampling).completions[0]
        assert rows[place]["output"] == expected.text.strip()


def test_the_same_seed_gives_the_same_file(opened, job):
    answer_instructions(opened, KIND, job)
    first = job.out.read_bytes()
    answer_instructions(opened, KIND, job)
    assert job.out.read_bytes() == first


def test_a_person_of_whom_nothing_is_known_is_refused(opened, job):
    with pytest.raises(InvalidInputError, match="Nothing is known"):
        answer_instructions(opened, Asked(way="soup"), job)
    with pytest.raises(InvalidPreferenceError):
        answer_instructions(opened, Asked(way="soup", preference={"odd": 1.0}), job)
    assert not job.out.exists()
