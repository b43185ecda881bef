import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.core.types import PayoffTable
from palate.portfolio.payoffs import Measurements, payoffs_from_measurements, shifted
from research.portfolio.baselines import subset
from research.portfolio.exact import exact_payoffs


def measurements(rewards, kl, **more) -> Measurements:
    rewards, kl = np.array(rewards, dtype=float), np.array(kl, dtype=float)
    return Measurements(
        objectives=tuple("abc"[: rewards.shape[2]]),
        policies=tuple(f"p{k}" for k in range(len(rewards))),
        rewards=rewards,
        kl=kl,
        beta=0.5,
        **more,
    )


def table(values, **more) -> PayoffTable:
    values = np.array(values, dtype=float)
    return PayoffTable(
        objectives=tuple("abc"[: values.shape[1]]),
        policies=tuple(f"p{k}" for k in range(len(values))),
        values=values,
        standard_errors=np.zeros_like(values),
        beta=0.1,
        kl=more.pop("kl", np.full(len(values), np.nan)),
        preferences=np.full_like(values, np.nan),
        **more,
    )


def test_values_and_paired_errors_are_those_of_paper_and_pencil():
    # two policies, two prompts, one objective; KL is 0.2 everywhere
    payoffs = payoffs_from_measurements(
        measurements([[[0.9], [0.5]], [[0.7], [0.1]]], [[0.2, 0.2], [0.2, 0.2]])
    )
    np.testing.assert_allclose(payoffs.table.values, [[0.7 - 0.1], [0.4 - 0.1]])
    # differences to the average policy: +0.1, +0.2 and -0.1, -0.2; sd 0.0707 over sqrt(2)
    np.testing.assert_allclose(payoffs.table.standard_errors, [[0.05], [0.05]])
    # the average policy: 0.8, 0.3; sd 0.35355 over sqrt(2)
    np.testing.assert_allclose(payoffs.level_errors, [0.25])


def test_what_a_prompt_does_to_all_policies_alike_enters_the_level_only():
    rng = np.random.default_rng(0)
    own = rng.normal(0.5, 0.01, size=(3, 400, 2))
    prompt = rng.normal(0.0, 0.1, size=(1, 400, 2))
    kl = np.zeros((3, 400))
    wide = {"reward_range": (-2.0, 2.0)}
    alone = payoffs_from_measurements(measurements(own, kl, **wide))
    together = payoffs_from_measurements(measurements(own + prompt, kl, **wide))
    np.testing.assert_allclose(together.table.standard_errors, alone.table.standard_errors)
    assert np.all(together.level_errors > 5 * alone.level_errors)


def test_a_policy_that_was_never_scored_on_an_objective_is_missing_there():
    rewards = np.full((2, 3, 2), 0.5)
    rewards[1, :, 1] = np.nan
    payoffs = payoffs_from_measurements(measurements(rewards, np.ones((2, 3))))
    assert np.isnan(payoffs.table.values[1, 1])
    assert payoffs.table.values[1, 0] == 0.0
    assert payoffs.reward_range == (0.0, 1.0)


def test_an_objective_is_averaged_over_the_prompts_that_all_share():
    rewards = np.array([[[0.2], [0.4], [0.9]], [[0.6], [0.8], [np.nan]]])
    payoffs = payoffs_from_measurements(measurements(rewards, np.zeros((2, 3))))
    np.testing.assert_allclose(payoffs.table.values, [[0.3], [0.7]])


def test_policies_without_a_shared_prompt_are_refused():
    rewards = np.array([[[0.2], [np.nan]], [[np.nan], [0.8]]])
    with pytest.raises(InvalidInputError, match="share no prompt"):
        payoffs_from_measurements(measurements(rewards, np.zeros((2, 2))))


def test_an_offset_moves_values_optima_and_range_together():
    payoffs = exact_payoffs(table([[0.1, 0.2]]))
    moved = shifted(payoffs, 1.0)
    np.testing.assert_allclose(moved.table.values, [[1.1, 1.2]])
    assert moved.reward_range is None


def test_a_subset_keeps_its_policies_in_the_given_order():
    part = subset(exact_payoffs(table([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])), [2, 0])
    assert part.table.policies == ("p2", "p0")
    assert part.table.values.tolist() == [[0.5, 0.6], [0.1, 0.2]]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"policies": ("p", "p")}, "occurs twice"),
        ({"objectives": ("a", "a")}, "occurs twice"),
        ({"values": np.zeros((0, 2)), "policies": ()}, "empty"),
        ({"values": np.array([[np.inf, 0.0], [0.0, 0.0]])}, "not finite"),
        ({"values": np.array([[np.nan, 0.0], [0.0, 0.0]])}, "missing"),
        ({"values": np.zeros((2, 3))}, "shape"),
        ({"standard_errors": np.array([[-1.0, 0.0], [0.0, 0.0]])}, "standard error"),
        ({"beta": -0.1}, "beta"),
        ({"kl": np.array([-0.1, 0.0])}, "KL"),
    ],
)
def test_tables_that_no_decision_can_rest_on_are_refused(change, word):
    fields = {
        "objectives": ("a", "b"),
        "policies": ("p", "q"),
        "values": np.zeros((2, 2)),
        "standard_errors": np.zeros((2, 2)),
        "beta": 0.1,
        "kl": np.zeros(2),
        "preferences": np.full((2, 2), np.nan),
    }
    with pytest.raises(InvalidInputError, match=word):
        exact_payoffs(PayoffTable(**{**fields, **change}))


@pytest.mark.parametrize(
    ("rewards", "kl", "word"),
    [
        (np.zeros((2, 3, 1)), np.zeros((2, 2)), "same prompts"),
        (np.full((1, 3, 1), 1.5), np.zeros((1, 3)), "calibrate"),
        (np.zeros((1, 3, 1)), np.full((1, 3), np.nan), "not finite"),
    ],
)
def test_measurements_that_do_not_fit_are_refused(rewards, kl, word):
    with pytest.raises(InvalidInputError, match=word):
        measurements(rewards, kl)


def test_one_prompt_gives_no_standard_error():
    with pytest.raises(InvalidInputError, match="two or more"):
        payoffs_from_measurements(measurements(np.zeros((1, 1, 1)), np.zeros((1, 1))))
