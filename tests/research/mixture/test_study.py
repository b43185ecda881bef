"""The study's numbers, from judged answers made by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from research.mixture.ablations import REBEL, UNIFORM, _found
from research.mixture.report import render_study, study_json, write_study
from research.mixture.win_rates import (
    EVERY_METHOD,
    OURS,
    Answered,
    MixtureStudySettings,
    compared_prompts,
    seeded,
    study_of,
)
from research.world.objectives import USERS

N_PROMPTS = 4
SETTINGS = MixtureStudySettings(Path("work"), seeds=(0, 1), n_prompts=N_PROMPTS)
COMPARED = compared_prompts(N_PROMPTS)


def at(level: float) -> Answered:
    n = N_PROMPTS * len(USERS)
    return Answered(np.full((n, 6), level), np.ones(n, dtype=bool))


def part(**levels: float) -> dict[str, Answered]:
    return {name: at(levels.get(name.replace("-", "_"), 0.5)) for name in EVERY_METHOD}


def study(*parts: dict[str, Answered]):
    from research.mixture.verdicts import joined

    return study_of(list(parts), joined([COMPARED] * len(parts)), SETTINGS)


def test_every_user_wants_three_and_is_asked_every_prompt() -> None:
    assert COMPARED.is_wanted.sum(axis=1).tolist() == [3] * 32
    assert COMPARED.prompt[:9].tolist() == [0] * 8 + [1]
    assert np.array_equal(COMPARED.is_wanted[0], USERS[0].preference.vector() > 0)


def test_wins_are_counted_over_all_seeds_and_the_target_is_checked() -> None:
    better, worse = part(controller=0.6), part(controller=0.6, static=0.7)
    found = study(better, worse)
    uniform, static = found.methods["uniform"].rates, found.methods["static"].rates
    assert uniform is not None
    assert static is not None
    assert (uniform.n_wins, uniform.n_losses) == (64, 0)
    assert (static.n_wins, static.n_losses) == (32, 32)
    assert found.methods["static"].by_seed == (1.0, 0.0)
    assert found.average.ties_out.estimate == pytest.approx((6 + 0.5) / 7)
    assert found.failures == ("The controller does not beat the best constant shares.",)
    assert found.by_user["Ana"].estimate == pytest.approx(0.0)
    assert found.round_robin[OURS] == pytest.approx((6 + 0.5) / 7)
    assert found.per_objective[OURS]["expert"] == pytest.approx(0.6)


def test_a_missed_target_is_said_with_its_number(tmp_path: Path) -> None:
    found = study(part(controller=0.4), part(controller=0.4))
    assert found.failures[0] == "The average win rate is 0.0%, not 66%."
    text = render_study(found, None)
    assert "0.0 % [0.0," in text
    assert "The average win rate is 0.0%" in text
    write_study(found, None, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "mixture-world.md",
        "mixture-world.json",
        "mixture-world-wins.png",
    }
    assert study_json(found, None)["methods"]["uniform"]["rates"]["n_losses"] == 64


def test_ablations_compare_with_the_trained_controller_and_on_held_out_users() -> None:
    base = part(controller=0.6)[OURS].gold
    gold = {REBEL: base, UNIFORM: base - 0.2, "ppo": base - 0.1, "six-of-eight": base - 0.05}
    curve = [{"reward": 0.4, "mean_entropy": 1.0}] * 9 + [{"reward": 0.7, "mean_entropy": 0.5}]
    found = _found(gold, {REBEL: curve}, {REBEL: 10}, SETTINGS, seed=0)
    assert found.rows[REBEL].reward == pytest.approx(0.7)
    assert found.rows[REBEL].difference is None
    ppo = found.rows["ppo"]
    assert ppo.difference is not None
    assert ppo.difference.estimate == pytest.approx(-0.1)
    assert ppo.wins is not None
    assert ppo.wins.estimate == 0.0
    assert found.held_out_share == pytest.approx(0.15 / 0.2)


def test_each_seed_trains_with_its_own_seed() -> None:
    assert seeded(SETTINGS.run, 7).fit.seed == 7
    assert seeded(SETTINGS.run, 7).fit.loss == SETTINGS.run.fit.loss


@pytest.mark.parametrize("wrong", [{"seeds": ()}, {"seeds": (1, 1)}, {"n_prompts": 1}])
def test_a_study_of_nothing_is_refused(wrong) -> None:
    with pytest.raises(InvalidInputError):
        replace(SETTINGS, **wrong)
