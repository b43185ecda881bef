"""How much a copied or regenerated answer says: the weight at which it predicts verdicts best.

    python -m research.preferences.weak_evidence FOLDER
    python -m research.preferences.weak_evidence --heeded 0.3

`FOLDER` holds users' exports (`palate users export USER --out FOLDER/USER.json`). For each weight,
every user's belief is made from copies and regenerations alone, and scored by the log-probability
of the user's comparisons and thumbs, nats a verdict. The best weight is for `weak_weight` of the
server's settings. Features are put on one scale, and the prior is standard normal on it.

Without a folder users are simulated: a share of weak signs heeds what they want as thumbs do, and
the others are chance.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.core.files import read_json
from palate.core.seeds import generator_for
from palate.core.types import Belief, Feedback
from palate.preferences.belief import WEAK, Learner
from palate.preferences.newton import moderate
from palate.preferences.settings import LearningSettings
from research.command_line import IsJson, Seed, print_result, run

WEIGHTS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
N_FEATURES, N_WEAK, N_VERDICTS = 4, 30, 10  # of each simulated user


def weight_scores(histories: Sequence[Sequence[Feedback]]) -> dict[float, float]:
    """By weight, the mean log-probability of a verdict given weak evidence alone, nats.

    Raises:
        InvalidInputError: no user has both weak evidence and verdicts.
    """
    both = [own for own in histories if len({item.kind in WEAK for item in own}) == 2]
    if not both:
        raise InvalidInputError(
            "No user has copies or regenerations beside comparisons or thumbs; collect both."
        )
    scale = np.maximum(np.std([item.features for own in both for item in own], axis=0), 1e-9)
    prior = Belief(np.zeros(len(scale)), np.eye(len(scale)))
    scores: dict[float, float] = {}
    for weight in WEIGHTS:
        learner = Learner(prior, LearningSettings(weak_weight=weight, is_gain_fitted=False))
        logs: list[float] = []
        for own in both:
            scaled = [
                replace(item, features=tuple((np.array(item.features) / scale).tolist()))
                for item in own
            ]
            belief = learner.refit([item for item in scaled if item.kind in WEAK])
            for item in scaled:
                if item.kind not in WEAK:
                    x = np.array(item.features)
                    chance = float(moderate(x @ belief.mean, x @ belief.covariance @ x))
                    logs.append(item.label * np.log(chance) + (1 - item.label) * np.log1p(-chance))
        scores[weight] = float(np.mean(logs))
    return scores


def simulated_histories(
    n_users: int, *, heeded: float, generator: np.random.Generator
) -> list[list[Feedback]]:
    """Users with weak signs, of which this share heeds what they want, and with verdicts."""
    histories: list[list[Feedback]] = []
    for user in range(n_users):
        wanted = generator.standard_normal(N_FEATURES)
        own: list[Feedback] = []
        for place in range(N_WEAK + N_VERDICTS):
            x = generator.standard_normal(N_FEATURES)
            is_weak = place < N_WEAK
            is_chance = is_weak and generator.random() >= heeded
            label = float(generator.random() < (0.5 if is_chance else expit(x @ wanted)))
            kind: Any = ("regenerate", "copy")[int(label)] if is_weak else "thumbs"
            own.append(Feedback(f"user {user}", kind, tuple(x.tolist()), label))
        histories.append(own)
    return histories


def read_histories(folder: Path) -> list[list[Feedback]]:
    """What the exports in a folder say, without ratings, comments and what was withdrawn.

    Raises:
        InvalidInputError: there is no export, or one lacks a field.
    """
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise InvalidInputError(f"The folder {str(folder)!r} holds no export of a user (.json).")
    try:
        return [
            [
                Feedback(export["user"], item["kind"], tuple(item["features"]), item["label"])
                for item in export["feedback"]
                if item["kind"] in {*WEAK, "comparison", "thumbs"}
                and item.get("withdrawn_at") is None
            ]
            for export in (read_json(path, what="export") for path in paths)
        ]
    except (KeyError, TypeError) as error:
        raise InvalidInputError(
            f"A file in {str(folder)!r} is no export of a user ({error}); write it with "
            "`palate users export`."
        ) from error


def main(
    folder: Annotated[
        Path | None, typer.Argument(help="Of users' exports; simulated where absent.")
    ] = None,
    *,
    heeded: Annotated[float, typer.Option(min=0, max=1, help="Of simulated weak signs.")] = 0.3,
    users: Annotated[int, typer.Option(min=1, help="That are simulated.")] = 200,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """The weight of weak evidence that predicts verdicts best."""
    generator = generator_for(seed, "weak evidence")
    histories = (
        simulated_histories(users, heeded=heeded, generator=generator)
        if folder is None
        else read_histories(folder)
    )
    scores = weight_scores(histories)
    result = {"weak_weight": max(scores, key=lambda weight: scores[weight]), "nats": scores}
    print_result(result, is_json=is_json)


if __name__ == "__main__":
    run(main)
