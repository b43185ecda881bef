"""Verdicts on anybody's answers: what each user wants of the rewards, beyond what everybody wants.

    python -m research.preferences.verdicts verdicts.jsonl --library smollm2-135m

With `--database` the users are stored, too, and served; see `research.preferences.fitted_store`.

The features of a comparison are the differences of the rewards' raw scores, of the logarithm of
the length, and of the sentence embeddings along the directions in which answers differ most; each
has deviation one over all comparisons. `research.preferences.personal` fits and holds out.

Rows of a file, JSONL or parquet, each with `user_id` and `prompt`, and

    chosen, rejected                  the first is preferred; `is_tie: true` says neither
    responses, best                   a list of answers, and the place of the best from 0
    completion, rating                answers to one prompt are compared by one user's ratings, so
                                      the scale is the user's own
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from jaxtyping import Float
from numpy import ndarray

from palate import Library, open_store
from palate.core.errors import InvalidInputError
from palate.core.protocols import Reward
from palate.core.seeds import generator_for
from palate.core.types import Interval
from palate.library.folder import LibraryFolder
from palate.library.rewards import library_rewards
from palate.library.shipped import library_folder
from palate.metrics.intervals import bootstrap_interval
from palate.rewards.embedding import load_embedder
from palate.rewards.reward import LearnedReward, load_reward
from palate.rewards.rows import read_rows, texts_of
from palate.rewards.settings import EMBEDDER
from research.command_line import IsJson, Seed, print_result, run
from research.preferences.personal import (
    Comparisons,
    accuracy_by_user,
    held_out_margins,
    user_vectors,
)

N_DIRECTIONS = 4  # of embeddings
FEWEST_USERS = 5  # with held-out comparisons, for a verdict
_MAX_LENGTH = 256  # tokens that are embedded


@dataclass(frozen=True)
class Verdict:
    """One user's comparison of two answers."""

    user: str
    prompt: str
    first: str
    second: str
    label: float = 1.0  # 1 the first is preferred, 0.5 neither


@dataclass(frozen=True, eq=False)
class FittedUsers:
    """What verdicts say of their users."""

    features: tuple[str, ...]
    users: tuple[str, ...]
    n_comparisons: int
    means: Float[ndarray, "users features"]  # of each user's vector
    deviations: Float[ndarray, "users features"]
    population: Float[ndarray, " features"]  # the prior's mean
    accuracy: dict[str, Float[ndarray, " users"]]  # held out; NaN where a user has ties alone
    gain: Interval | None  # of personal over population, over users; `None` for too few

    @property
    def is_personal(self) -> bool:
        """Whether users' own vectors predict better than the population's."""
        return self.gain is not None and self.gain.low > 0

    @property
    def sentence(self) -> str:
        """The verdict in a sentence."""
        if self.gain is None:
            return f"Personal beyond the population: not shown (fewer than {FEWEST_USERS} users)."
        of = f"{self.gain.estimate:+.3f} [{self.gain.low:+.3f}, {self.gain.high:+.3f}]"
        return (
            f"Personal beyond the population: {'yes' if self.is_personal else 'not shown'}, {of}."
        )

    def row(self, place: int) -> dict[str, Any]:
        """One user in a line: held-out accuracies and the clearest coefficient."""
        largest = int(np.abs(self.means[place] / self.deviations[place]).argmax())
        mean, half = self.means[place, largest], 1.96 * self.deviations[place, largest]
        return {
            "user": self.users[place],
            **{name: _plain(values)[place] for name, values in self.accuracy.items()},
            "clearest coefficient": self.features[largest],
            "of": f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]",
        }

    def to_json(self) -> dict[str, Any]:
        """The outcome as plain data; accuracies by user, and their means."""
        shares = {name: _plain(values) for name, values in self.accuracy.items()}
        means = {name: float(np.nanmean(values)) for name, values in self.accuracy.items()}
        return {
            "verdict": self.sentence,
            "is_personal": self.is_personal,
            "n_users": len(self.users),
            "n_comparisons": self.n_comparisons,
            "held_out_accuracy": means,
            "population": dict(zip(self.features, self.population.tolist(), strict=True)),
            "users": [
                {
                    "user": user,
                    "held_out_accuracy": {name: own[place] for name, own in shares.items()},
                    "coefficients": {
                        name: {"mean": mean, "sd": sd}
                        for name, mean, sd in zip(
                            self.features,
                            self.means[place].tolist(),
                            self.deviations[place].tolist(),
                            strict=True,
                        )
                    },
                }
                for place, user in enumerate(self.users)
            ],
        }


def read_verdicts(path: Path) -> list[Verdict]:
    """The comparisons of a file; see the module for its rows.

    Raises:
        InvalidInputError: the file is missing, unreadable or holds no comparison, a row lacks a
            field, its answers are equal, or a rating is not a number.
    """
    rows, places = read_rows(path, what="file of verdicts")
    verdicts: list[Verdict] = []
    rated: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for whole, place in zip(rows, places, strict=True):
        row = {name: value for name, value in whole.items() if value is not None}  # as in a table
        user = row.get("user_id")
        if not isinstance(user, str | int) or not str(user).strip():
            raise InvalidInputError(f"{place} has no 'user_id'; say whose verdict it is.")
        if "rating" in row:
            prompt, answer = texts_of(row, "completion", place=place)
            rated.setdefault((str(user), prompt), []).append((answer, _rating(row, place=place)))
        else:
            verdicts += _compared(row, str(user), place=place)
    for (user, prompt), own in rated.items():
        for (one, high), (other, low) in itertools.combinations(sorted(own, key=_by_rating), 2):
            if one != other:
                verdicts.append(Verdict(user, prompt, one, other, 1.0 if high > low else 0.5))
    if not verdicts:
        raise InvalidInputError(
            f"The file of verdicts {str(path)!r} compares no two answers; give 'chosen' and "
            "'rejected', or several ratings of one user for one prompt."
        )
    return verdicts


def fit_users(verdicts: Sequence[Verdict], rewards: Sequence[Reward], *, seed: int) -> FittedUsers:
    """Every user's vector over the features, and whether it predicts more than the population's.

    Raises:
        InvalidInputError: all verdicts are on one prompt, or a score is not finite.
    """
    users = tuple(dict.fromkeys(verdict.user for verdict in verdicts))
    prompts = list(dict.fromkeys(verdict.prompt for verdict in verdicts))
    names, x = features_of(verdicts, rewards)
    flips = generator_for(seed, "sides").random(len(x)) < 0.5  # so that no side is always better
    sides = np.where(flips, -1.0, 1.0)
    labels = np.array([verdict.label for verdict in verdicts])
    comparisons = Comparisons(
        x * sides[:, None],
        np.where(flips, 1.0 - labels, labels),
        np.array([users.index(verdict.user) for verdict in verdicts]),
        np.array([prompts.index(verdict.prompt) for verdict in verdicts]),
    )
    personal, common = held_out_margins(comparisons, generator=generator_for(seed, "folds"))
    margins = {"personal": personal, "population": common}
    margins["longer"] = comparisons.features[:, names.index("length")]
    accuracy = {name: accuracy_by_user(own, comparisons) for name, own in margins.items()}
    gains = accuracy["personal"] - accuracy["population"]
    gains = gains[np.isfinite(gains)]
    generator = generator_for(seed, "personal gain")
    gain = bootstrap_interval(gains, generator=generator) if len(gains) >= FEWEST_USERS else None
    prior, means, deviations = user_vectors(comparisons)
    return FittedUsers(names, users, len(verdicts), means, deviations, prior.mean, accuracy, gain)


def rewards_of(library: Path | None, folders: Sequence[Path]) -> list[Reward]:
    """The rewards of a library and of these folders, one of the two at least.

    Raises:
        InvalidInputError: there is none, or a folder holds no reward.
        FormatError: a reward was changed.
    """
    if library is None and not folders:
        raise InvalidInputError("There are no rewards to weigh; give --library or --rewards.")
    rewards: list[Reward] = [load_reward(folder) for folder in folders]
    if library is not None:
        rewards += library_rewards(LibraryFolder.open(library)).rewards
    return rewards


def features_of(
    verdicts: Sequence[Verdict], rewards: Sequence[Reward]
) -> tuple[tuple[str, ...], Float[ndarray, "verdicts features"]]:
    """Names and values of the features: the first answer's minus the second's, deviation one.

    Raises:
        InvalidInputError: a score is not finite.
    """
    prompts = [verdict.prompt for verdict in verdicts]
    sides = [[v.first for v in verdicts], [v.second for v in verdicts]]
    columns: dict[str, ndarray] = {}
    for reward in rewards:
        score = reward.raw if isinstance(reward, LearnedReward) else reward.score
        first, second = (np.asarray(score(prompts, answers)) for answers in sides)
        columns[reward.objective] = first - second
    lengths = [np.log1p([len(answer.split()) for answer in answers]) for answers in sides]
    columns["length"] = lengths[0] - lengths[1]
    embedder = load_embedder(EMBEDDER, max_length=_MAX_LENGTH)
    difference = embedder.embed(sides[0]) - embedder.embed(sides[1])
    directions = np.linalg.svd(difference, full_matrices=False)[2][:N_DIRECTIONS]
    for place, along in enumerate((difference @ directions.T).T, start=1):
        columns[f"embedding {place}"] = along
    values = np.stack(list(columns.values()), axis=1)
    return tuple(columns), values / np.maximum(np.sqrt(np.mean(values**2, axis=0)), 1e-9)


def _compared(row: Mapping[str, Any], user: str, *, place: str) -> list[Verdict]:
    if "responses" in row:
        answers, best = row["responses"], row.get("best")
        best = int(best) if isinstance(best, float) and best.is_integer() else best  # a table's
        has_texts = isinstance(answers, list) and all(isinstance(text, str) for text in answers)
        if not has_texts or type(best) is not int or not 0 <= best < len(answers):
            raise InvalidInputError(
                f"{place} needs 'responses', a list of texts, and 'best', the place of one of them "
                "from 0."
            )
        (prompt,) = texts_of(row, place=place)
        others = [text for text in answers if text != answers[best]]
        return [Verdict(user, prompt, answers[best], text) for text in others]
    prompt, first, second = texts_of(row, "chosen", "rejected", place=place)
    if first == second:
        raise InvalidInputError(f"{place} has chosen == rejected ({first[:40]!r}); remove it.")
    return [Verdict(user, prompt, first, second, 0.5 if row.get("is_tie") is True else 1.0)]


def _rating(row: Mapping[str, Any], *, place: str) -> float:
    value = row["rating"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise InvalidInputError(f"{place} has the rating {value!r}; give a finite number.")
    return float(value)


def _by_rating(pair: tuple[str, float]) -> float:
    return -pair[1]


def _plain(values: Float[ndarray, " users"]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def main(
    verdicts: Annotated[
        Path, typer.Argument(help="JSONL or parquet: user_id, prompt, chosen, rejected.")
    ],
    library: Annotated[
        Path | None,
        typer.Option(help="Folder of a library, or smollm2-135m.", parser=library_folder),
    ] = None,
    *,
    rewards: Annotated[
        list[Path] | None, typer.Option(help="Folder of a reward; give it again for more.")
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="Where each user's preference is stored, for --library.")
    ] = None,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """What users want of rewards, from verdicts on anybody's answers; is it personal?"""
    if database is not None and library is None:
        raise InvalidInputError("Users are stored for a library; give --library with --database.")
    fitted = fit_users(read_verdicts(verdicts), rewards_of(library, rewards or ()), seed=seed)
    result = fitted.to_json()
    if database is not None and library is not None:
        from research.preferences.fitted_store import load_into

        opened = Library.load(library)
        with open_store(database, opened) as store:
            result["stored"] = load_into(store, fitted, opened.manifest.objectives)
    if not is_json:
        result["users"] = [fitted.row(place) for place in range(len(fitted.users))]
    print_result(result, is_json=is_json)


if __name__ == "__main__":
    run(main)
