"""A library answers AlpacaEval's instructions as a user wants them."""

import json

import pytest

from palate.core.decision import Known
from palate.core.errors import InvalidInputError, InvalidPreferenceError
from palate.core.protocols import SamplingParams
from palate.evaluate.alpaca import AlpacaJob, answer_instructions
from palate.library.library import Library

KIND = Known(preference={"kind": 0.5, "short": 0.5}, strength=2.0)


@pytest.fixture(scope="module")
def opened(tiny_library):
    return Library.load(tiny_library)


@pytest.fixture
def job(tmp_path):
    rows = [{"instruction": f"a b {k}", "input": "c" * (k % 2)} for k in range(70)]
    path = tmp_path / "instructions.json"
    path.write_text(json.dumps(rows))
    return AlpacaJob(path, tmp_path / "outputs.json", SamplingParams(max_tokens=4), generator="me")


def test_every_instruction_is_answered_once_in_order(opened, job):
    found = answer_instructions(opened, KIND, job, method="soup")
    rows = json.loads(job.out.read_text())
    assert [row["instruction"] for row in rows] == [f"a b {k}" for k in range(70)]
    assert {row["generator"] for row in rows} == {"me"}
    assert found["n_answers"] == 70
    assert found["coefficients"] == pytest.approx({"kind": 1.0, "short": 1.0, "plain": 0.0})


def test_greedy_answers_are_those_of_palate_generate(opened, job):
    greedy = AlpacaJob(job.instructions, job.out, SamplingParams(temperature=0.0, max_tokens=4))
    answer_instructions(opened, KIND, greedy, method="soup")
    rows = json.loads(job.out.read_text())
    for place, prompt in ((0, "a b 0"), (1, "a b 1\n\nc"), (69, "a b 69\n\nc")):
        expected = opened.generate(
            prompt,
            preference=KIND.preference,
            strength=2.0,
            method="soup",
            sampling=greedy.sampling,
        )
        assert rows[place]["output"] == expected.text.strip()


def test_the_same_seed_gives_the_same_file(opened, job):
    answer_instructions(opened, KIND, job, method="soup")
    first = job.out.read_bytes()
    answer_instructions(opened, KIND, job, method="soup")
    assert job.out.read_bytes() == first


def test_a_user_of_whom_nothing_is_known_is_refused(opened, job):
    with pytest.raises(InvalidInputError, match="Nothing is known"):
        answer_instructions(opened, Known(), job, method="soup")
    with pytest.raises(InvalidPreferenceError):
        answer_instructions(opened, Known(preference={"odd": 1.0}), job, method="soup")
    assert not job.out.exists()
