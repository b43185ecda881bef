import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from research.statistics.audit import Judgments, audit_judge

QUESTIONS = tuple(f"q{k % 20}" for k in range(400))


def users(draws):
    """Users prefer the longer answer in seven of ten cases, whatever the question."""
    return Judgments(QUESTIONS, draws.random(400) < 0.7)


def test_a_judge_that_is_the_user_agrees_always_and_has_no_length_gap():
    judgments = users(np.random.default_rng(1))
    found = audit_judge(
        "echo",
        verdicts=np.ones(400),
        is_flipped=np.zeros(400, dtype=bool),
        judgments=judgments,
    )
    assert found.agreement.estimate == 1.0
    assert found.flips.estimate == 0.0
    assert found.longer.estimate == pytest.approx(judgments.is_longer.mean())
    assert found.length_gap.estimate == 0.0


def test_the_length_rule_agrees_as_often_as_users_like_length_and_its_gap_is_one():
    judgments = users(np.random.default_rng(2))
    found = audit_judge(
        "longer",
        verdicts=judgments.is_longer.astype(float),
        is_flipped=np.zeros(400, dtype=bool),
        judgments=judgments,
    )
    assert found.agreement.estimate == pytest.approx(judgments.is_longer.mean())
    assert found.longer.estimate == 1.0
    assert (found.if_longer.estimate, found.if_shorter.estimate) == (1.0, 0.0)
    assert found.length_gap.low == found.length_gap.high == 1.0


def test_flips_become_ties_and_are_counted():
    judgments = users(np.random.default_rng(3))
    is_flipped = np.arange(400) % 4 == 0
    found = audit_judge(
        "nervous",
        verdicts=np.where(is_flipped, 0.5, 1.0),
        is_flipped=is_flipped,
        judgments=judgments,
    )
    assert found.flips.estimate == 0.25
    assert found.n_ties == 100
    assert found.agreement.estimate == pytest.approx(0.875)


def test_a_judge_that_likes_length_a_little_has_a_gap_whose_interval_holds_the_truth():
    draws = np.random.default_rng(4)
    n_covered = 0
    for _ in range(60):
        judgments = users(draws)
        chance = np.where(judgments.is_longer, 0.8, 0.6)
        found = audit_judge(
            "vain",
            verdicts=(draws.random(400) < chance).astype(float),
            is_flipped=np.zeros(400, dtype=bool),
            judgments=judgments,
        )
        n_covered += found.length_gap.low <= 0.2 <= found.length_gap.high
    assert n_covered >= 52


def test_verdicts_that_do_not_fit_are_refused():
    judgments = users(np.random.default_rng(5))
    flat = np.zeros(400, dtype=bool)
    with pytest.raises(InvalidInputError, match="3 verdicts on 400"):
        audit_judge("few", verdicts=np.ones(3), is_flipped=flat, judgments=judgments)
    with pytest.raises(InvalidInputError, match="none of 1"):
        audit_judge("odd", verdicts=np.full(400, 0.7), is_flipped=flat, judgments=judgments)
