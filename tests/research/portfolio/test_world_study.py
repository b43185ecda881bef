"""The portfolio study's numbers, from measurements made by hand and by exact policies."""

from itertools import combinations

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.core.simplex import lattice
from palate.portfolio.payoffs import Measurements
from research.portfolio.baselines import uniform_anchors
from research.portfolio.tabular import TabularOracle, measured, yardstick
from research.portfolio.world_losses import (
    METHODS,
    compare_methods,
    losses_of,
    members_by_method,
    oracle_failures,
    study_json,
)
from research.portfolio.world_policies import (
    OBJECTIVES,
    GoldRules,
    Trained,
    WorldStudySettings,
    study_prompts,
)
from research.portfolio.world_report import render_world_study, write_world_study
from research.world.gold import gold_reward
from research.world.prompts import held_out_prompts, train_prompts

N_PROMPTS = 40


@pytest.fixture(scope="module")
def trained() -> list[Trained]:
    """Two seeds of exact policies, measured as an experiment would."""
    return [exact_policies(seed) for seed in (0, 1)]


def exact_policies(seed: int) -> Trained:
    oracle = TabularOracle(yardstick(seed=seed, n_objectives=3, beta=0.1))
    generator = np.random.default_rng(seed)
    uniform = [
        [oracle.policy(a) for a in uniform_anchors(n_objectives=3, size=size)]
        for size in range(1, 5)
    ]
    random = [oracle.policy(a) for a in generator.dirichlet(np.ones(3), size=4)]
    search = [*uniform[2], *(oracle.policy(a) for a in generator.dirichlet(np.ones(3), size=2))]
    names = tuple(dict.fromkeys([*(n for row in uniform for n in row), *random, *search]))
    seen, gold = (
        measured(oracle, names, n_prompts=N_PROMPTS, generator=generator) for _ in range(2)
    )
    texts = tuple(tuple((f"{name} says {p} {p}",) for p in range(N_PROMPTS)) for name in names)
    return Trained(
        seed, seen, gold, texts, tuple(map(tuple, uniform)), tuple(random), tuple(search)
    )


def test_losses_are_those_of_the_worst_and_the_mean_user_by_hand():
    values = np.array([[1.0, 0.2], [0.2, 1.0], [0.7, 0.7]])
    users = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    worth = users @ values.T
    found = losses_of(worth, worth, [0, 1])
    assert found["additive"] == pytest.approx(0.1)  # the middle has 0.6 instead of 0.7
    assert found["multiplicative"] == pytest.approx(0.1 / 0.7)
    assert found["mean"] == pytest.approx(0.1 / 3)
    # the library believes that the first member is best for all: the last user gets 0.2, not 1
    believed = users @ np.array([[2.0, 2.0], [0.0, 0.0], [0.0, 0.0]]).T
    assert losses_of(worth, believed, [0, 1])["routed"] == pytest.approx(0.8)


def test_members_are_the_best_there_are_of_what_each_method_may_choose_from(trained):
    one = trained[0]
    values = one.seen.rewards.mean(axis=1) - 0.1 * one.seen.kl.mean(axis=1)[:, None]
    found = members_by_method(one, sizes=[1, 2, 3, 4])
    users = lattice(n_objectives=3, denominator=60)
    pool = [one.seen.policies.index(name) for name in one.adaptive]
    best = (users @ values[pool].T).max(axis=1)

    def gap(members):
        return float(np.max(best - (users @ values[list(members)].T).max(axis=1)))

    by_hand = min(combinations(pool, 2), key=gap)
    assert gap(found["PALM", 2][0]) == pytest.approx(gap(by_hand), abs=2e-3)
    assert set(found["adaptive", 3][0]) == set(pool[:3])
    assert set(found["adaptive", 2][0]) < set(pool[:3])
    assert len(found["random", 4]) == 1
    assert len(found["random", 2]) == 6
    assert [one.seen.policies[k] for k in found["uniform", 4][0]] == list(one.uniform[3])


def test_more_members_lose_less_and_intervals_hold_the_estimate(trained, tmp_path):
    settings = WorldStudySettings(seeds=(0, 1), max_size=4, n_resamples=50)
    study = compare_methods(trained, settings=settings)
    assert study.n_policies == tuple(len(one.seen.policies) for one in trained)
    for method in ("PALM", "any"):
        gaps = [study.row(method, size).mean.value for size in (1, 2, 4)]
        assert gaps == sorted(gaps, reverse=True)
    row = study.row("random", 2)
    assert row.additive.value == pytest.approx(np.mean(row.additive.by_seed))
    assert row.additive.low <= row.additive.value <= row.additive.high
    assert row.less_than_random.value == 0.0
    assert row.less_than_uniform.value == pytest.approx(
        row.additive.value - study.row("uniform", 2).additive.value
    )
    assert study.row("uniform", 1).perplexity == pytest.approx(1.0)
    assert all(1.0 <= study.row(method, 4).perplexity <= 4.0 + 1e-9 for method in METHODS)
    by_method = {row.method: row for row in study.diversity}
    # every answer is "NAME says P P": of its bigrams only (says, P) and (P, P) recur
    assert by_method["uniform"].distinct_2 == pytest.approx((4 + 2) / 12)
    write_world_study(study, tmp_path)
    assert (tmp_path / "portfolio-world.png").stat().st_size > 10_000
    text = render_world_study(study)
    assert f"{study.row('PALM', 3).additive.value:.3f} [" in text
    assert study_json(study)["rows"][0]["additive"]["value"] == study.rows[0].additive.value


def test_a_policy_that_is_beaten_for_its_own_preference_is_named():
    rewards = np.tile(np.array([[0.9, 0.1], [0.5, 0.4], [0.1, 0.9]])[:, None, :], (1, 10, 1))
    rewards += np.linspace(0, 1e-3, 10)[None, :, None]
    seen = Measurements(
        ("a", "b"),
        ("first", "weak", "second"),
        np.clip(rewards, 0, 1),
        np.zeros((3, 10)),
        0.1,
        np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]),
    )
    assert oracle_failures(seen) == ("weak",)


def test_no_prompt_that_chooses_or_judges_was_trained_on():
    chosen = study_prompts(240, seed=0)
    assert len(set(chosen)) == 240
    assert not set(chosen) & set(train_prompts())
    assert not set(chosen) & set(held_out_prompts())


def test_the_judge_is_the_gold_rules_of_the_three_objectives():
    texts = ["It is a small animal.", "nonsense"]
    rules = GoldRules(OBJECTIVES)
    found = rules.score(["", ""], texts)
    for column, name in enumerate(rules.objectives):
        assert np.array_equal(found[:, column], gold_reward(name, texts))


@pytest.mark.parametrize(
    ("objectives", "sentence"),
    [
        (("elementary", "kind"), "no objective 'kind'; it has elementary"),
        (("friendly", "elementary"), "repeat or are not in the world's order"),
        (("expert", "expert"), "repeat or are not in the world's order"),
        (("elementary", "expert", "friendly"), "may make 2 policies, but begins with one for each"),
    ],
)
def test_objectives_that_cannot_be_studied_are_refused(objectives, sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        WorldStudySettings.checked({"objectives": objectives, "max_calls": 2}, source="a test")


def test_a_study_of_other_objectives_has_files_of_its_own(trained: list[Trained], tmp_path) -> None:
    settings = WorldStudySettings(
        seeds=(0, 1), max_size=2, n_resamples=3, objectives=("elementary", "concise", "friendly")
    )
    write_world_study(compare_methods(trained, settings=settings), tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == {
        "portfolio-world-elementary-concise-friendly"
    }
    text = next(tmp_path.glob("*.md")).read_text()
    assert "--objectives elementary,concise,friendly" in text
