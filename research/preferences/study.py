"""What questions, credible regions and drift are worth, on simulated users.

Everybody has a preference drawn evenly from the simplex and answers by the model that beliefs
assume. A question is a pair of answers from a pool, whose rewards are drawn evenly from [0, 1]. The
policy served for an estimate `w` has the value `w / |w|` (the policies on a sphere: every
preference has its own best one), so the loss of a wrong estimate is smooth and never zero by luck.

The achievable utility is that of knowing everybody exactly; what is reached is given as the share
of the gain over serving equal preferences (which is zero before the first question), and, easier
on everybody, as the share of the utility itself.

Limits: simulated users are of the kind the belief assumes; real ones are worse. The pool is rich;
with few or similar pairs choosing helps less.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import typer
from jaxtyping import Float
from numpy import ndarray
from scipy.special import expit

from palate.core.seeds import generator_for
from palate.core.simplex import sample_simplex
from palate.metrics.intervals import bootstrap_interval
from palate.preferences.bradley_terry import fit_batch
from palate.preferences.drift import change_discounts
from palate.preferences.newton import moderate
from research.command_line import IsJson, Seed, print_result, run
from research.preferences.simplex_draws import preference_draws_batch
from research.preferences.simplex_mode import normal_on_plane, rooted_on_plane

Asking = Literal["random", "chosen"]
GOAL = 0.95  # of the achievable utility
LEVEL = 0.9  # of credible regions
CHECKED = (5, 10, 20, 40)  # comparisons after which coverage is counted
N_CHAINS = 32  # of draws for each user, 512 draws


@dataclass(frozen=True)
class Study:
    """A simulated population and how it is asked.

    Attributes:
        n_objectives: Entries of a preference.
        n_users: How many.
        n_questions: Of each user, at most.
        n_pool: Pairs that can be asked.
        gain: How sharply users answer; 10 makes 4 of 5 answers to random pairs right.
        change_at: Comparisons after which everybody's preference is sampled anew.
        is_drift_expected: Whether changes of preference are looked for.
        seed: Random seed of the study.
    """

    n_objectives: int = 4
    n_users: int = 200
    n_questions: int = 60
    n_pool: int = 300
    gain: float = 10.0
    change_at: int | None = None
    is_drift_expected: bool = False
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Path:
    """What became of a population, after each question.

    Attributes:
        gained: `[questions, users]`, utility gained over equal preferences.
        possible: `[questions, users]`, what knowing the user would gain.
        utility_share: `[questions]`, mean utility over mean achievable utility.
        covered: `[questions, users]`, whether the credible region held the preference; NaN where
            it was not looked at.
    """

    gained: Float[ndarray, "questions users"]
    possible: Float[ndarray, "questions users"]
    utility_share: Float[ndarray, " questions"]
    covered: Float[ndarray, "questions users"]

    def gain_share(self) -> Float[ndarray, " questions"]:
        """Share of the possible gain that is reached, by number of questions."""
        return self.gained.sum(axis=1) / self.possible.sum(axis=1)


def follow_users(study: Study, *, asking: Asking) -> Path:
    """Ask everybody question after question, refitting everybody after each."""
    world = _World.of(study)
    prior = normal_on_plane(n_objectives=study.n_objectives)
    rooted = rooted_on_plane(prior)
    shape = (study.n_users, study.n_questions)
    features, labels = np.zeros((*shape, study.n_objectives)), np.zeros(shape)
    means = np.tile(prior.mean, (study.n_users, 1))
    covariances = np.tile(prior.covariance, (study.n_users, 1, 1))
    steps: list[tuple[Float[ndarray, " users"], ...]] = []
    for number in range(study.n_questions):
        preferences = world.preferences_at(number)
        if asking == "random":
            picked = world.random_pairs[:, number]
        else:
            picked = _most_informative(means, covariances, world.pool, gain=study.gain)
        features[:, number] = world.pool[picked]
        margins = study.gain * (features[:, number] * preferences).sum(axis=1)
        labels[:, number] = world.chances[:, number] < expit(margins)
        said = slice(0, number + 1)
        fits = fit_batch(
            features[:, said],
            labels[:, said],
            prior=rooted,
            gain=study.gain,
            discounts=_discounts(study, features[:, said], labels[:, said]),
            tolerance=1e-6,
        )
        means, covariances = fits.mean, fits.covariance
        draws = preference_draws_batch(means, covariances, seed=number, n_chains=N_CHAINS)
        steps.append(
            _scores(draws, means, covariances, preferences, is_checked=number + 1 in CHECKED)
        )
    gained, possible, utility, best, covered = (np.array(part) for part in zip(*steps, strict=True))
    return Path(gained, possible, utility.mean(axis=1) / best.mean(axis=1), covered)


def questions_needed(path: Path, *, goal: float = GOAL) -> int | None:
    """The first number of questions from which the share of the possible gain stays at the goal."""
    reached = path.gain_share() >= goal
    stays = np.logical_and.accumulate(reached[::-1])[::-1]
    return int(stays.argmax()) + 1 if stays.any() else None


def study_questions(study: Study, *, n_random: int) -> dict[str, Any]:
    """Comparisons to the goal, random against chosen; coverage of credible regions.

    Args:
        study: The population; its number of questions is for chosen ones.
        n_random: Most random questions.
    """
    chosen = follow_users(study, asking="chosen")
    longer = replace(study, n_questions=n_random)
    random = follow_users(longer, asking="random")
    needed = {"random": questions_needed(random), "chosen": questions_needed(chosen)}
    ratio = None
    if needed["chosen"] is not None:
        ratio = (needed["random"] or n_random) / needed["chosen"]
    coverage = {
        f"{name} after {count}": bootstrap_interval(
            path.covered[count - 1], generator=generator_for(study.seed, "coverage")
        ).to_json()
        for name, path in (("random", random), ("chosen", chosen))
        for count in CHECKED
        if count <= len(path.covered)
    }
    return {
        "n_objectives": study.n_objectives,
        "n_users": study.n_users,
        "goal": GOAL,
        "comparisons_needed": needed,
        "times_fewer": ratio,
        "is_ratio_a_lower_bound": needed["random"] is None,
        "gain_share": {
            name: {str(n): float(path.gain_share()[n - 1]) for n in (5, 10, 20, 40, 60) if n <= top}
            for name, path, top in (
                ("random", random, n_random),
                ("chosen", chosen, study.n_questions),
            )
        },
        "utility_share": {
            name: {str(n): float(path.utility_share[n - 1]) for n in (5, 10, 20, 40)}
            for name, path in (("random", random), ("chosen", chosen))
        },
        "coverage_of_90_percent_regions": coverage,
        "mean_coverage": float(np.mean([row["estimate"] for row in coverage.values()])),
    }


def study_drift(study: Study, *, n_after: int = 20) -> dict[str, Any]:
    """Utility before and after everybody changes preference, and what looking for changes costs.

    Args:
        study: The population; `change_at` says when.
        n_after: Comparisons after the change until recovery is judged.
    """
    at = study.change_at or 50
    found: dict[str, Any] = {"n_objectives": study.n_objectives, "change_at": at}
    base = replace(study, n_questions=at + n_after)
    for name, changes, expects in (
        ("change, expected", at, True),
        ("change, not expected", at, False),
        ("no change, expected", None, True),
        ("no change, not expected", None, False),
    ):
        path = follow_users(
            replace(base, change_at=changes, is_drift_expected=expects), asking="chosen"
        )
        found[name] = {
            "before": float(path.utility_share[at - 1]),
            "after_5": float(path.utility_share[at + 4]),
            "after_20": float(path.utility_share[at + n_after - 1]),
        }
    fresh = follow_users(replace(base, n_questions=n_after, change_at=None), asking="chosen")
    found["new user after 20"] = float(fresh.utility_share[-1])
    kept, lost = found["change, expected"], found["no change, expected"]
    found["recovered_share"] = kept["after_20"] / kept["before"]
    found["cost_without_drift"] = found["no change, not expected"]["after_20"] - lost["after_20"]
    return found


@dataclass(frozen=True, eq=False)
class _World:
    preferences: Float[ndarray, "users objectives"]
    later: Float[ndarray, "users objectives"]
    change_at: int | None
    pool: Float[ndarray, "pairs objectives"]
    random_pairs: ndarray
    chances: Float[ndarray, "users questions"]

    @classmethod
    def of(cls, study: Study) -> "_World":
        def draws(name: str) -> np.random.Generator:
            return generator_for(study.seed, "people study", study.n_objectives, name)

        def preferences(name: str) -> Float[ndarray, "users objectives"]:
            return sample_simplex(
                n_points=study.n_users, n_objectives=study.n_objectives, generator=draws(name)
            )

        shape = (study.n_users, study.n_questions)
        pool = draws("pool").random((2, study.n_pool, study.n_objectives))
        return cls(
            preferences=preferences("t"),
            later=preferences("later t"),
            change_at=study.change_at,
            pool=pool[0] - pool[1],
            random_pairs=draws("random pairs").integers(study.n_pool, size=shape),
            chances=draws("answers").random(shape),
        )

    def preferences_at(self, n_answers: int) -> Float[ndarray, "users objectives"]:
        is_later = self.change_at is not None and n_answers >= self.change_at
        return self.later if is_later else self.preferences


def _discounts(
    study: Study,
    features: Float[ndarray, "users said objectives"],
    labels: Float[ndarray, "users said"],
) -> Float[ndarray, "users said"] | None:
    if not study.is_drift_expected:
        return None
    prior = rooted_on_plane(normal_on_plane(n_objectives=study.n_objectives))
    return np.array(
        [
            change_discounts(x, y, prior=prior, gain=study.gain)
            for x, y in zip(features, labels, strict=True)
        ]
    )


def _most_informative(
    means: Float[ndarray, "users objectives"],
    covariances: Float[ndarray, "users objectives objectives"],
    pool: Float[ndarray, "pairs objectives"],
    *,
    gain: float,
) -> ndarray:
    """`questions.select_informative` for everybody at once."""
    scaled = gain * pool
    variance = (np.matmul(scaled, covariances) * scaled).sum(axis=2)  # [users, pairs]
    win = moderate(means @ scaled.T, variance)
    return np.log1p(win * (1.0 - win) * variance).argmax(axis=1)


def _scores(
    draws: Float[ndarray, "users draws objectives"],
    means: Float[ndarray, "users objectives"],
    covariances: Float[ndarray, "users objectives objectives"],
    preferences: Float[ndarray, "users objectives"],
    *,
    is_checked: bool,
) -> tuple[Float[ndarray, " users"], ...]:
    estimates = draws.mean(axis=1)
    served = estimates / np.linalg.norm(estimates, axis=1, keepdims=True)
    equal = np.full(preferences.shape[1], preferences.shape[1] ** -0.5)
    utility, best, cold = (
        (preferences * served).sum(axis=1),
        np.linalg.norm(preferences, axis=1),
        preferences @ equal,
    )
    covered = np.full(len(preferences), np.nan)
    if is_checked:
        precisions = np.linalg.pinv(covariances, hermitian=True)
        squares = _squares(draws - means[:, None], precisions)
        own = _squares((preferences - means)[:, None], precisions)[:, 0]
        covered = (own <= np.quantile(squares, LEVEL, axis=1)).astype(np.float64)
    return utility - cold, best - cold, utility, best, covered


def _squares(
    away: Float[ndarray, "users draws objectives"], precisions: Float[ndarray, "users o o"]
) -> Float[ndarray, "users draws"]:
    return (np.matmul(away, precisions) * away).sum(axis=2)


def main(
    *,
    objectives: Annotated[int, typer.Option(min=2, help="Of each preference.")] = 4,
    users: Annotated[int, typer.Option(min=2, help="Simulated users.")] = 200,
    questions: Annotated[int, typer.Option(min=40, help="Most chosen questions.")] = 80,
    random_questions: Annotated[int, typer.Option(min=40, help="Most random questions.")] = 300,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """Simulated users: chosen against random questions, and coverage of credible regions."""
    found = study_questions(
        Study(n_objectives=objectives, n_users=users, n_questions=questions, seed=seed),
        n_random=random_questions,
    )
    print_result(found, is_json=is_json)


if __name__ == "__main__":
    run(main)
