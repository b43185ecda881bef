import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.core.types import Belief, Feedback, FeedbackKind
from palate.preferences import gaussian_posterior, newton
from palate.preferences.belief import Learner
from palate.preferences.settings import LearningSettings
from palate.preferences.simulated import SimulatedUser
from research.preferences.one_user import fit


def items(
    n: int, *, seed: int = 0, n_features: int = 3, kinds: Sequence[FeedbackKind] = ("comparison",)
) -> list[Feedback]:
    generator = np.random.default_rng(seed)
    return [
        Feedback(
            user="p",
            kind=kinds[generator.integers(len(kinds))],
            features=tuple(generator.normal(size=n_features).tolist()),
            label=float(generator.integers(2)),
            group=str(generator.integers(3)),
            key=str(number),
        )
        for number in range(n)
    ]


def learner(**settings: object) -> Learner:
    chosen = LearningSettings.checked(settings, source="test")
    return Learner(Belief(np.array([0.3, 0.0, -0.2]), np.eye(3)), settings=chosen)


def learn_all(teacher: Learner, history: Sequence[Feedback]) -> Belief:
    belief = teacher.start
    for position, item in enumerate(history):
        belief = teacher.learn(belief, item, earlier=lambda end=position: history[:end])
    return belief


@pytest.mark.parametrize("drift", ["none", "steady", "adaptive"])
@pytest.mark.parametrize("n", [0, 1, 24, 25, 26, 63])
def test_a_belief_learned_item_by_item_equals_its_rebuild_from_the_log(drift: str, n: int) -> None:
    teacher = learner(drift=drift, forgetting=0.9)
    history = items(n, kinds=("comparison", "rating", "thumbs"))
    learned, rebuilt = learn_all(teacher, history), teacher.rebuild(history)
    assert np.array_equal(learned.mean, rebuilt.mean)
    assert np.array_equal(learned.covariance, rebuilt.covariance)
    assert (learned.n_observations, learned.gain) == (n, rebuilt.gain)


def test_a_refit_of_comparisons_is_the_batch_fit() -> None:
    teacher = learner(is_gain_fitted=False, gain=2.0)
    history = items(25)
    features = np.array([item.features for item in history])
    labels = np.array([item.label for item in history])
    wanted = fit(features, labels, prior=teacher.prior, gain=2.0)
    assert teacher.rebuild(history).mean == pytest.approx(wanted.mean, abs=1e-12)


def test_ratings_one_by_one_equal_ridge_regression_centred_within_groups() -> None:
    history = items(20, kinds=("rating",))
    groups = np.array([int(item.group) for item in history])
    same = (groups[:, None] == groups).astype(float)
    centre = np.eye(20) - same / same.sum(axis=1)
    features = centre @ np.array([item.features for item in history])
    precision = features.T @ features + np.eye(3)
    as_margins = LearningSettings(is_rating_scaled=False)
    got = learn_all(Learner(Belief(np.zeros(3), np.eye(3)), as_margins), history)
    wanted = np.linalg.solve(precision, features.T @ [item.label for item in history])
    assert got.mean == pytest.approx(wanted, abs=1e-10)
    assert got.covariance == pytest.approx(np.linalg.inv(precision), abs=1e-10)


def rated(
    features: np.ndarray, ratings: np.ndarray, *, groups: Sequence[object], **settings: object
) -> Belief:
    """The belief after these ratings, from a prior of variance noise^2: ridge regression."""
    chosen = LearningSettings.checked({"is_rating_scaled": False, **settings}, source="test")
    width = features.shape[1]
    teacher = Learner(Belief(np.zeros(width), chosen.rating_noise**2 * np.eye(width)), chosen)
    rows = zip(features.tolist(), ratings.tolist(), groups, strict=True)
    return teacher.refit([Feedback("p", "rating", tuple(x), y, str(g)) for x, y, g in rows])


def test_ratings_equal_the_recorded_ridge_estimate(shared_folder: Path) -> None:
    path = shared_folder / "methods" / "cases" / "bradley_terry.json"
    case = json.loads(path.read_text())["ratings"]
    # a ridge other than one is a prior of variance 1 / ridge, here by the features' scale
    root = np.sqrt(case["ridge"])
    belief = rated(
        np.array(case["features"]) / root, np.array(case["ratings"]), groups=case["prompt_ids"]
    )
    assert belief.mean / root == pytest.approx(np.array(case["coefficients"]), abs=1e-8)


def test_a_constant_for_each_prompt_changes_nothing() -> None:
    generator = np.random.default_rng(0)
    features, ratings = generator.normal(size=(12, 3)), generator.normal(size=12)
    groups = [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3]
    shift = np.array([5.0, -2.0, 0.0, 9.0])[groups]
    first = rated(features, ratings, groups=groups)
    second = rated(features + shift[:, None], ratings - shift, groups=groups)
    assert first.mean == pytest.approx(second.mean, abs=1e-10)


def test_the_covariance_of_ratings_is_that_of_linear_regression() -> None:
    features = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    belief = rated(features, np.zeros(4), groups=[0, 0, 0, 0], rating_noise=3.0)
    # X'X = diag(2, 8), so the covariance is 9 diag(1/3, 1/9)
    assert belief.covariance == pytest.approx(np.diag([3.0, 1.0]))
    assert belief.n_observations == 4


def test_one_rating_for_each_prompt_returns_the_prior() -> None:
    belief = rated(np.eye(3), np.array([1.0, 2.0, 3.0]), groups=["a", "b", "c"])
    assert belief.mean.tolist() == [0.0, 0.0, 0.0]


def test_the_first_rating_of_a_group_says_nothing() -> None:
    teacher = learner()
    belief = learn_all(teacher, items(1, kinds=("rating",)))
    assert belief.n_observations == 1
    assert np.array_equal(belief.mean, teacher.prior.mean)


def test_a_tie_draws_the_margin_towards_zero() -> None:
    teacher = Learner(Belief(np.array([2.0, 0.0]), np.eye(2)))
    tie = Feedback("p", "comparison", (1.0, 0.0), 0.5)
    after = teacher.learn(teacher.start, tie, earlier=list)
    assert 0.0 < after.mean[0] < 2.0
    assert after.mean[1] == 0.0


def test_contradictions_lower_the_gain_and_leave_the_belief_finite() -> None:
    pair = (1.0, -1.0, 0.5)
    steady = [Feedback("p", "comparison", pair, 1.0, key=str(n)) for n in range(50)]
    torn = [Feedback("p", "comparison", pair, float(n % 2), key=str(n)) for n in range(50)]
    teacher = Learner(Belief(np.zeros(3), np.eye(3)))
    sure, unsure = teacher.rebuild(steady), teacher.rebuild(torn)
    assert unsure.gain < 0.5 < sure.gain
    assert np.isfinite(unsure.mean).all()
    assert abs(unsure.mean @ np.array(pair)) < 0.3
    assert np.linalg.eigvalsh(unsure.covariance).min() > 0


def test_a_random_voter_gets_a_lower_gain_than_a_careful_one() -> None:
    generator = np.random.default_rng(0)
    coefficients = np.array([1.5, -1.0, 0.5])
    gains: dict[float, list[float]] = {0.0: [], 1.0: []}
    for lapse in gains:
        for _ in range(10):
            user = SimulatedUser(coefficients, gain=1.0, lapse_share=lapse)
            features = generator.normal(size=(75, 3))
            history = [
                Feedback("p", "comparison", tuple(x), user.compare(x, generator=generator))
                for x in features.tolist()
                for x in [np.array(x)]
            ]
            gains[lapse].append(Learner(Belief(np.zeros(3), np.eye(3))).rebuild(history).gain)
    assert np.median(gains[1.0]) < 0.5 * np.median(gains[0.0])


def test_an_adversary_is_learned_as_a_user_of_the_opposite_preference() -> None:
    generator = np.random.default_rng(1)
    user = SimulatedUser(np.array([1.0, -1.0, 0.0]), gain=3.0)
    features = generator.normal(size=(100, 3))
    history = [
        Feedback("p", "comparison", tuple(x.tolist()), 1.0 - user.compare(x, generator=generator))
        for x in features
    ]
    mean = Learner(Belief(np.zeros(3), np.eye(3))).rebuild(history).mean
    assert mean[0] < -0.5
    assert mean[1] > 0.5


def test_objectives_that_were_never_rated_keep_their_prior() -> None:
    prior = Belief(np.array([0.0, 0.4, 0.1]), np.diag([1.0, 2.0, 3.0]))
    history = [Feedback("p", "comparison", (1.0, 0.0, 0.0), 1.0) for _ in range(30)]
    after = Learner(prior).rebuild(history)
    assert after.mean[1:] == pytest.approx(prior.mean[1:])
    assert np.diag(after.covariance)[1:] == pytest.approx([2.0, 3.0])
    related = Belief(np.zeros(2), np.array([[1.0, 0.8], [0.8, 1.0]]))
    moved = Learner(related).rebuild([Feedback("p", "comparison", (1.0, 0.0), 1.0)] * 30)
    assert moved.mean[1] > 0.3  # what goes together in the population is learned together


def test_thumbs_up_only_is_held_by_the_prior() -> None:
    generator = np.random.default_rng(2)
    history = [
        Feedback("p", "thumbs", tuple((x + 0.3).tolist()), 1.0)
        for x in generator.normal(size=(200, 3))
    ]
    after = Learner(Belief(np.zeros(3), np.eye(3))).rebuild(history)
    assert (after.mean > 0).all()  # drawn towards what was shown
    assert np.linalg.norm(after.mean) < 4.0


def test_feedback_of_another_width_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="2 features"):
        learner().learn(learner().start, Feedback("p", "comparison", (1.0, 2.0), 1.0), earlier=list)


@pytest.mark.parametrize("size", [0.0, 25.0, 1e4, 1e200])
@pytest.mark.parametrize("gain", [1e-3, 5.0, 1e3])
@pytest.mark.parametrize("drift", ["none", "steady", "adaptive"])
def test_a_verdict_of_any_size_is_learned_and_shown(size: float, gain: float, drift: str) -> None:
    teacher = learner(gain=gain, drift=drift)
    history = [
        replace(item, features=tuple(size * value for value in item.features))
        for item in items(30, kinds=("comparison", "rating", "thumbs"))
    ]
    for belief in (learn_all(teacher, history), teacher.posterior(history)):
        assert belief.is_converged
        assert np.isfinite(belief.mean).all()
        assert (np.linalg.eigvalsh(belief.covariance) > -1e-9).all()


def test_a_fit_that_is_stopped_gives_its_best_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newton, "MAX_ROUNDS", 1)
    monkeypatch.setattr(gaussian_posterior, "MAX_ROUNDS", 1)
    history = items(12)
    belief, shown = learn_all(learner(), history), learner().posterior(history)
    assert not belief.is_converged
    assert not shown.is_converged
    assert belief.n_observations == 12
    assert np.isfinite(belief.mean).all()


@pytest.mark.parametrize("n", [12, 40])
def test_ratings_from_1_to_100_say_what_the_same_from_1_to_5_say(n: int) -> None:
    generator = np.random.default_rng(3)
    fives = [
        replace(item, label=float(generator.integers(1, 6))) for item in items(n, kinds=("rating",))
    ]
    hundreds = [replace(item, label=1.0 + 24.75 * (item.label - 1.0)) for item in fives]
    for belief in (learner().rebuild, learner().posterior):
        one, other = belief(fives), belief(hundreds)
        assert one.mean == pytest.approx(other.mean, abs=1e-9)
        assert one.covariance == pytest.approx(other.covariance, abs=1e-9)
    as_margins = learner(is_rating_scaled=False)
    far = np.linalg.norm(as_margins.rebuild(hundreds).mean - as_margins.prior.mean)
    near = np.linalg.norm(learner().rebuild(hundreds).mean - learner().prior.mean)
    assert near < far / 5  # where they are taken for margins, one user drowns in 100 points


def test_the_scale_of_ratings_is_found_and_beliefs_are_as_good_as_if_it_were_known() -> None:
    generator = np.random.default_rng(5)
    ratio: list[float] = []
    for _ in range(60):
        wanted = generator.normal(size=3)
        x = generator.normal(size=(40, 3))
        margins = x @ wanted + generator.normal(size=40)
        groups = [str(place // 4) for place in range(40)]
        teacher = Learner(Belief(np.zeros(3), np.eye(3)))
        beliefs = [
            teacher.refit(
                [
                    Feedback("p", "rating", tuple(row), 50.0 + scale * value, group)
                    for row, value, group in zip(x.tolist(), margins, groups, strict=True)
                ]
            )
            for scale in (1.0, 10.0)
        ]
        assert beliefs[0].mean == pytest.approx(beliefs[1].mean, abs=1e-9)
        ratio.append(float(beliefs[0].mean @ wanted / (wanted @ wanted)))
    assert 0.8 < np.median(ratio) < 1.2


def test_equal_ratings_and_absurd_ones_are_read() -> None:
    same = [replace(item, label=3.0) for item in items(10, kinds=("rating",))]
    prior = learner().prior
    assert np.linalg.norm(learner().rebuild(same).mean - prior.mean) < 1.0
    huge = [replace(item, label=(-1.0) ** k * 1e300) for k, item in enumerate(same)]
    assert np.isfinite(learner().rebuild(huge).mean).all()


def test_a_copy_is_a_thumb_up_at_full_weight_and_a_fraction_of_it_by_default() -> None:
    (thumb,) = items(1, kinds=("thumbs",))
    moves = {}
    for weight in (0.2, 1.0):
        teacher = learner(weak_weight=weight)
        for kind, label in (("thumbs", 1.0), ("copy", 1.0), ("regenerate", 0.0)):
            belief = teacher.rebuild([replace(thumb, kind=kind, label=label)])
            moves[kind, weight] = belief.mean - teacher.prior.mean
    assert moves["copy", 1.0] == pytest.approx(moves["thumbs", 1.0], abs=1e-12)
    for kind in ("copy", "regenerate"):
        small, large = (np.linalg.norm(moves[kind, weight]) for weight in (0.2, 1.0))
        assert 0.1 * large < small < 0.5 * large
    direction = np.array(thumb.features)
    assert moves["copy", 0.2] @ direction > 0 > moves["regenerate", 0.2] @ direction


@pytest.mark.parametrize("drift", ["none", "steady", "adaptive"])
@pytest.mark.parametrize("n", [26, 63])
def test_weak_evidence_is_learned_item_by_item_as_from_the_log(drift: str, n: int) -> None:
    teacher = learner(drift=drift, forgetting=0.9)
    history = items(n, kinds=("comparison", "rating", "thumbs", "copy", "regenerate"))
    learned, rebuilt = learn_all(teacher, history), teacher.rebuild(history)
    assert np.array_equal(learned.mean, rebuilt.mean)
    assert np.array_equal(learned.covariance, rebuilt.covariance)
