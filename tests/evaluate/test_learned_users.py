"""Users known by comparisons: the server's learner, its features, and more comparisons the same."""

import numpy as np
import pytest

from palate.core.errors import FormatError
from palate.evaluate.context import Comparisons
from palate.evaluate.suite import UserSettings
from palate.library.features import log_ratios, scored_text
from palate.library.library import Library
from palate.training.rollouts import read_rollouts

ANA = UserSettings(name="ana", preference={"kind": 1.0})


@pytest.fixture(scope="module")
def library(tiny_soup_library):
    return Library.load(tiny_soup_library)


@pytest.fixture(scope="module")
def users(library):
    return Comparisons(library, seed=3)


def test_more_comparisons_hold_the_first_ones_again(users):
    few = users.feedback(ANA, n_comparisons=4)
    assert users.feedback(ANA, n_comparisons=9)[:4] == few
    other = ANA.model_copy(update={"name": "bo"})
    assert users.feedback(other, n_comparisons=4) != few


def test_features_are_differences_of_the_experts_log_ratios_in_reward_units(library, users):
    item = users.feedback(ANA, n_comparisons=1)[0]
    names = library.manifest.objective_names
    rows = read_rollouts(library.files.rollouts_path, objectives=names)
    texts = [scored_text(library.base, row.prompt, row.completion) for row in rows]
    ratios = log_ratios(library.base, library.files.expert_folders(), texts)
    values = library.manifest.beta * ratios
    differences = [
        values[a] - values[b]
        for a, first in enumerate(rows)
        for b, second in enumerate(rows)
        if first.prompt == second.prompt and a != b
    ]
    nearest = min(np.abs(one - np.array(item.features)).max() for one in differences)
    assert nearest < 1e-4


def test_the_learner_is_the_servers(library):
    from palate.serve.believed import Believer
    from palate.serve.settings import ServeSettings

    believer = Believer(library.soups, ServeSettings())
    assert library.soups.learner().digest == believer.learner.digest


def test_the_belief_is_that_of_the_whole_history(library, users):
    history = users.feedback(ANA, n_comparisons=6)
    belief = users.belief(ANA, n_comparisons=6)
    expected = library.soups.learner().rebuild(history)
    np.testing.assert_array_equal(belief.mean, expected.mean)
    assert belief.n_observations == 6
    assert users.belief(ANA, n_comparisons=6) is belief
    assert users.belief(ANA, n_comparisons=0).n_observations == 0


def test_a_user_whose_rewards_differ_says_so(library, monkeypatch):
    users = Comparisons(library, seed=0)
    monkeypatch.setattr(
        Comparisons,
        "_rewards",
        lambda self, first, second: np.array(
            [float(first.completion > second.completion) * 2 - 1] * 3
        ),
    )
    labels = [item.label for item in users.feedback(ANA, n_comparisons=200)]
    pairs = []
    monkeypatch.setattr(
        Comparisons,
        "_rewards",
        lambda self, first, second: (
            pairs.append(first.completion > second.completion),
            np.zeros(3),
        )[1],
    )
    users.feedback(ANA, n_comparisons=200)
    agreed = np.mean([label == is_first for label, is_first in zip(labels, pairs, strict=True)])
    assert 0.9 < agreed < 1.0  # one answer in ten is a coin flip


def test_a_library_without_rollouts_is_refused(tiny_library):
    users = Comparisons(Library.load(tiny_library), seed=0)
    with pytest.raises(FormatError, match="no rollouts"):
        users.belief(ANA, n_comparisons=3)
