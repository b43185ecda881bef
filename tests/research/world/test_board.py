"""The board: of each seed only what the methods need is built, and the gold rules judge."""

import numpy as np
import pytest

from palate.mixture.wording import MixtureRequest, Wording
from palate.models.load import load_base
from research.world.board import (
    BOARD_METHODS,
    SHAPES,
    Board,
    run_board,
    world_parts,
    world_users,
)
from research.world.gold import gold_rewards, judge
from research.world.objectives import OBJECTIVE_NAMES, OBJECTIVES, USERS
from research.world.prompts import base_folder


@pytest.mark.parametrize(
    ("methods", "parts"),
    [
        (("base", "soup"), {"library"}),
        (("base", "mixture"), {"library", "controller"}),
        (("base", "mixture+best-of-2"), {"library", "controller"}),
        (("base", "mixture-even"), {"library"}),
        (("base", "bespoke"), {"library", "bespoke"}),
        (BOARD_METHODS, {"library", "controller", "conditioned"}),
    ],
)
def test_parts_follow_from_the_methods(methods, parts):
    found = world_parts(methods)
    assert found[0] == "library"
    assert set(found) == parts


def test_the_judge_tells_answers_to_another_prompt_from_good_ones():
    text = "The desert fox is a small animal."
    rewards, flags = judge(["What is a diesel crane?"], [text])
    np.testing.assert_array_equal(rewards, gold_rewards([text]))
    assert flags == [False]


def test_the_quick_board_is_a_part_of_the_whole(tmp_path):
    whole = Board(tmp_path)
    quick = whole.quick()
    assert quick.suite.methods == BOARD_METHODS
    assert quick.seeds == whole.seeds[:1]
    assert quick.n_prompts < whole.n_prompts
    assert quick.is_quick


def test_eight_preferences_in_three_shapes_are_24_users_in_8_clusters():
    users = world_users()
    assert len(users) == len({user.name for user in users}) == 24
    assert {user.cluster for user in users} == {user.name for user in USERS}
    by_name = {user.name: user for user in users}
    first = USERS[0]
    words, amount, tone = (objective.name for objective in first.objectives)
    assert by_name[first.name].preference == pytest.approx(
        dict.fromkeys((words, amount, tone), 1 / 3)
    )
    assert by_name[f"{first.name} 70/20/10"].preference == {words: 0.7, amount: 0.2, tone: 0.1}
    assert by_name[f"{first.name} two"].preference == {words: 0.5, amount: 0.5}
    for user in users:
        assert sum(user.preference.values()) == pytest.approx(1.0)
        assert user.shape in SHAPES


def test_a_user_of_even_shares_is_put_into_the_same_words_by_all_methods_that_read_words():
    base = load_base(str(base_folder()))
    wording = Wording(base, tuple(objective.instruction for objective in OBJECTIVES), "full")
    for listed, user in zip(world_users(), USERS, strict=False):
        strengths = tuple(listed.preference.get(name, 0.0) for name in OBJECTIVE_NAMES)
        assert wording.preference(MixtureRequest("any", strengths)) == user.instruction


@pytest.mark.slow
def test_the_board_in_small_gives_the_whole_report(tmp_path):
    board = Board(tmp_path).quick()
    found = run_board(board, n_workers=2)
    report = found.evaluation.report
    assert {row.judge for row in found.results.answers} == {"gold"}
    assert {score.method for score in report.scores} == set(BOARD_METHODS)
    assert [table.shape for table in report.shapes] == ["all", "even", "70/20/10", "two"]
    assert report.n_clusters == 8
    assert report.tokens is not None
    assert len(report.examples) == 24
    page = (tmp_path / "report.html").read_text()
    for part in ("Which method to choose", "Who wrote which word", "Placement and cost"):
        assert part in page
    assert report.score("implicit-soup").facts["proposals_per_token"] >= 1.0
    assert report.score("portfolio").facts["certified_loss"] > 0
    assert report.auto is not None
    assert report.auto.calibration  # the library measured its methods
    assert {budget.passes for budget in report.frontier} >= {1.0, 4.0}
    assert report.score("personalised-soup").facts["bytes_per_user"] > 10_000
    learned = {(point.method, point.n_comparisons) for point in report.learning}
    assert learned == {("soup", 5), ("soup", 20), ("auto", 20)}
