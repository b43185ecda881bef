"""The Python door: an opened library, users, prompts, methods and a judge of one's own."""

from dataclasses import dataclass

import numpy as np
import pytest

from palate.core.decision import Decision
from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import read_json
from palate.core.plan import member_plan
from palate.evaluate.evaluation import evaluate_library, users_from
from palate.evaluate.judges import Judged
from palate.evaluate.rows import open_results
from palate.library.library import Library

PROMPTS = ("a b c", "d e")
USERS = {"ana": {"kind": 0.5, "plain": 0.5}, "bo": {"short": 1.0}}


class LengthJudge:
    """Everybody's reward is how few characters there are."""

    def judge(self, candidates):
        lengths = np.array([len(one.text) for one in candidates], dtype=float)
        return Judged(np.repeat(1.0 / (1.0 + lengths[:, None]), 3, axis=1))


class FirstExpert:
    """A method of one's own: the first expert, whoever asks."""

    name = "first-expert"

    def decide(self, library, messages, known):
        plan = member_plan(index=0, n_experts=library.bank.n_experts)
        return Decision(messages, plan, self.name, {"kind": 1.0}, reason="It is the first.")


@dataclass(frozen=True)
class Someone:
    name: str
    preference: dict
    instruction: str | None = None
    shape: str = ""


@pytest.fixture(scope="module")
def library(tiny_soup_library):
    return Library.load(tiny_soup_library)


@pytest.fixture(scope="module")
def found(library, tmp_path_factory):
    folder = tmp_path_factory.mktemp("door")
    methods = ["soup", "soup@3", FirstExpert(), "base"]
    done = evaluate_library(
        library,
        USERS,
        PROMPTS,
        methods=methods,
        output_dir=folder,
        judge=LengthJudge(),
        max_tokens=6,
    )
    return done, folder


def test_objects_and_names_are_measured_beside_the_base(found):
    done, folder = found
    names = [score.method for score in done.evaluation.report.scores]
    assert names == ["base", "soup", "soup@3", "first-expert"]
    rows = open_results(folder / "results.jsonl").answers
    assert len(rows) == 4 * len(USERS) * len(PROMPTS)
    own = [row for row in rows if row.method == "first-expert"]
    assert {row.taken for row in own} == {"first-expert"}
    assert {row.reason for row in own} == {"It is the first."}
    assert {row.judge for row in rows} == {"LengthJudge"}
    assert (folder / "report.html").is_file()


def test_utilities_are_the_judges(found):
    done, _ = found
    for row in done.results.answers:
        assert row.utility == pytest.approx(1.0 / (1.0 + len(row.text)))


def test_again_nothing_is_made_and_more_methods_are_added(found, library):
    done, folder = found
    again = evaluate_library(
        library,
        USERS,
        PROMPTS,
        methods=["soup", "output-soup"],
        output_dir=folder,
        judge=LengthJudge(),
        max_tokens=6,
    )
    fresh = [row for row in again.results.answers if row not in done.results.answers]
    assert {row.method for row in fresh} == {"output-soup"}
    with pytest.raises(InvalidInputError, match="another 'prompts'"):
        evaluate_library(
            library, USERS, ["x"], output_dir=folder, judge=LengthJudge(), max_tokens=6
        )


def test_results_of_another_method_of_the_same_name_are_not_reused(library, tmp_path):
    class Other(FirstExpert):
        name = "own"

    class Changed(FirstExpert):
        name = "own"

        def decide(self, library, messages, known):
            return super().decide(library, messages, known)

    options = {"output_dir": tmp_path, "judge": LengthJudge(), "max_tokens": 4}
    evaluate_library(library, USERS, PROMPTS, methods=[Other()], **options)
    evaluate_library(library, USERS, PROMPTS, methods=[Other()], seed=1, **options)
    with pytest.raises(InvalidInputError, match="another method 'own'"):
        evaluate_library(library, USERS, PROMPTS, methods=[Changed()], **options)
    assert read_json(tmp_path / "suite.json")["seeds"] == [0, 1]


def test_users_may_be_objects_with_their_own_words():
    users = users_from(
        [Someone("ana", {"kind": 1.0}, "Be kind.", "one"), Someone("bo", {"a": 1.0})]
    )
    assert [(user.name, user.instruction, user.shape) for user in users] == [
        ("ana", "Be kind.", "one"),
        ("bo", "", ""),
    ]
    with pytest.raises(InvalidInputError, match="'ana'"):
        users_from([Someone("ana", {"kind": 1.0}), Someone("ana", {"short": 1.0})])


def test_one_user_can_be_measured(library, tmp_path):
    done = evaluate_library(
        library,
        {"ana": {"kind": 1.0}},
        PROMPTS,
        methods=["soup"],
        output_dir=tmp_path,
        judge=LengthJudge(),
        max_tokens=4,
    )
    assert done.evaluation.report.score("soup").gain is not None


def test_without_a_judge_the_library_needs_rewards(library, tmp_path):
    with pytest.raises(FormatError, match="has no reward"):
        evaluate_library(library, USERS, PROMPTS, output_dir=tmp_path / "out")


@pytest.mark.parametrize(
    ("users", "prompts", "methods", "words"),
    [
        ({}, PROMPTS, ["soup"], "no users"),
        (USERS, (), ["soup"], "no prompts"),
        (USERS, PROMPTS, ["magic"], "magic"),
        ({"ana": {"colour": 1.0}}, PROMPTS, ["soup"], "colour"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_written(
    library, tmp_path, users, prompts, methods, words
):
    with pytest.raises(InvalidInputError, match=words):
        evaluate_library(
            library,
            users,
            prompts,
            methods=methods,
            output_dir=tmp_path / "out",
            judge=LengthJudge(),
        )
    assert not (tmp_path / "out").exists()
