"""The study's numbers, from judged answers made by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from research.world.demo import BASE_NAME
from research.world.judged import Judged
from research.world.objectives import OBJECTIVE_NAMES, USERS
from research.world.study import (
    StudySettings,
    render_study,
    report_of,
    study_json,
    write_study,
)

N_PROMPTS = 12
SETTINGS = StudySettings(Path("work"), seeds=(0, 1), n_per_prompt=1)


def judged_at(gold, *, n_broken=0):
    """Answers that all have these six gold rewards."""
    is_well_formed = np.arange(N_PROMPTS) >= n_broken
    return Judged(
        ("text",) * N_PROMPTS,
        np.tile(np.asarray(gold, float), (N_PROMPTS, 1)),
        is_well_formed,
        np.arange(N_PROMPTS),
    )


def everything(*, gain=0.4, soup_gain=0.1, n_broken=0):
    """Base at 0.3 everywhere; experts gain on their own objective, soups on all they want."""
    found = {BASE_NAME: judged_at([0.3] * 6)}
    for name in OBJECTIVE_NAMES:
        gold = [0.3 + gain * (other == name) for other in OBJECTIVE_NAMES]
        found[name] = judged_at(gold, n_broken=n_broken)
    for user in USERS:
        wanted = {objective.name for objective in user.objectives}
        found[user.name] = judged_at(
            [0.3 + soup_gain * (name in wanted) for name in OBJECTIVE_NAMES]
        )
    return found


def test_gains_are_differences_from_the_base_over_all_seeds():
    report = report_of([everything(gain=0.4), everything(gain=0.5)], settings=SETTINGS)
    expert = report.experts[2]
    assert expert.name == OBJECTIVE_NAMES[2]
    assert expert.base_mean == pytest.approx(0.3)
    assert expert.mean == pytest.approx(0.75)
    assert expert.gain.estimate == pytest.approx(0.45)
    assert expert.gain.n_clusters == N_PROMPTS
    assert expert.gain_by_seed == pytest.approx((0.4, 0.5))
    assert report.n_prompts == N_PROMPTS
    assert report.n_served == 8
    assert report.failures == ()


def test_a_small_gain_broken_answers_and_unserved_users_fail_by_name():
    report = report_of([everything(gain=0.29)], settings=replace(SETTINGS, seeds=(0,)))
    assert len(report.failures) == 6
    report = report_of([everything(n_broken=1)], settings=replace(SETTINGS, seeds=(0,)))
    assert "well-formed 0.917" in report.failures[0]
    found = everything()
    for user in USERS[:2]:
        spoilt = found[user.name].gold.copy()
        spoilt[:, OBJECTIVE_NAMES.index(user.objectives[0].name)] = 0.25
        found[user.name] = replace(found[user.name], gold=spoilt)
    report = report_of([found], settings=replace(SETTINGS, seeds=(0,)))
    assert report.n_served == 6
    assert report.users[0].served_by_seed == (False,)
    assert report.failures == ("soups serve 6 of 8 users",)


def test_one_user_may_be_missed():
    found = everything()
    spoilt = found[USERS[0].name]
    found[USERS[0].name] = replace(spoilt, gold=spoilt.gold - 0.2)
    report = report_of([found], settings=replace(SETTINGS, seeds=(0,)))
    assert report.n_served == 7
    assert report.failures == ()


def test_the_report_is_written_twice_with_the_same_numbers(tmp_path):
    report = report_of([everything(), everything()], settings=SETTINGS)
    write_study(report, tmp_path)
    text = (tmp_path / "world-experts.md").read_text()
    assert text == render_study(report)
    assert "0.400 [0.400, 0.400]" in text
    assert "Served: 8 of 8." in text
    assert "All checks passed." in text
    assert study_json(report)["experts"][0]["gain"]["estimate"] == pytest.approx(0.4)
    assert (tmp_path / "world-experts.json").is_file()


@pytest.mark.parametrize("wrong", [{"seeds": ()}, {"seeds": (1, 1)}, {"n_per_prompt": 0}])
def test_a_study_of_nothing_is_refused(wrong):
    with pytest.raises(InvalidInputError, match="make no study"):
        replace(SETTINGS, **wrong)
