"""What another method would have been worth on the answers of a log, without showing anything.

    python -m research.preferences.off_policy ana.json > log.jsonl
    python -m research.preferences.off_policy log.jsonl
    python -m research.preferences.off_policy --logs 400

A user's export (`palate users export`, `.json`) is turned into rows, to which `target_log_prob` is
to be added: `Library.score` gives it. A row says who judged (`user_id`), how well it went
(`reward`), the log-probability of the answer as it was sampled (`log_prob`), and under the other
method (`target_log_prob`, at the temperature of that method), nats. With a model of rewards, its
predictions for the answer (`predicted`) and for the other method's answers on average
(`target_predicted`) allow the doubly robust estimate.

The estimates, with `w = exp(target_log_prob - log_prob)`:

    IPS     mean of w r                               unbiased
    SNIPS   sum of w r / sum of w                     less spread, bias of order 1/n
    DR      mean of target_predicted + w (r - predicted)   unbiased whatever the model is

Intervals are of ratios of sums over users (linearised, Student's t): a user's rows may depend on
each other. There is no estimate where overlap is missing: an effective sample of fewer than 30
rows, or weights whose mean is below one by more than chance, which says that the other method does
what the log never shows. Long answers sampled at temperature 1 have little overlap with anything.

Without a file, logs of users with known preferences are simulated, and it is counted how often the
intervals cover the truth.

Source: Horvitz & Thompson 1952; Swaminathan & Joachims 2015, "The Self-Normalized Estimator for
Counterfactual Learning"; Dudik, Langford & Li 2011, "Doubly Robust Policy Evaluation and Learning".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import expit, softmax
from scipy.stats import t as student

from palate.core.errors import CheckFailedError, InvalidInputError, NotCertifiedError
from palate.core.files import dump_json, is_finite_number, numbered_jsonl, read_json
from palate.core.seeds import generator_for
from palate.core.types import Interval
from research.command_line import IsJson, Seed, print_result, run

LEVEL = 0.95
LEAST_ROWS = 30  # effective sample below which there is no estimate
LEAST_USERS = 10
TOO_FAR = 4.0  # standard errors that the mean weight may be below one
COVERED = (0.93, 0.97)  # share of simulated logs that passes
FIELDS = ("reward", "log_prob", "target_log_prob")
MODEL_FIELDS = ("predicted", "target_predicted")


@dataclass(frozen=True, eq=False)
class Log:
    """Judged answers, and how probable they are under the other method."""

    users: Int[ndarray, " rows"]  # numbers of users
    rewards: Float[ndarray, " rows"]
    log_probs: Float[ndarray, " rows"]  # as the answers were sampled, nats
    target_log_probs: Float[ndarray, " rows"]  # under the other method; -inf where it never does
    predicted: Float[ndarray, " rows"] | None = None  # reward of the answer, by a model
    target_predicted: Float[ndarray, " rows"] | None = None  # of the other method's, on average


def off_policy_values(log: Log) -> dict[str, Interval]:
    """Mean reward of the other method by estimator, with 95 % intervals over users.

    Raises:
        NotCertifiedError: overlap is missing, or there are fewer than ten users.
    """
    weights = np.exp(log.target_log_probs - log.log_probs)
    ones = np.ones(len(weights))
    require_overlap(weights, log.users)
    values = {
        "IPS": _ratio(weights * log.rewards, ones, log.users),
        "SNIPS": _ratio(weights * log.rewards, weights, log.users),
    }
    if log.predicted is not None and log.target_predicted is not None:
        corrected = log.target_predicted + weights * (log.rewards - log.predicted)
        values["DR"] = _ratio(corrected, ones, log.users)
    return values


def effective_rows(weights: Float[ndarray, " rows"]) -> float:
    """How many equally weighted rows say as much: `(sum w)^2 / sum w^2`."""
    return float(weights.sum() ** 2 / max(float((weights**2).sum()), 1e-300))


def require_overlap(weights: Float[ndarray, " rows"], users: Int[ndarray, " rows"]) -> None:
    """Return where the log shows what the other method does.

    Raises:
        NotCertifiedError: it does not, or there are fewer than ten users.
    """
    n_users = len(np.unique(users))
    if n_users < LEAST_USERS:
        raise NotCertifiedError(
            f"The log is of {n_users} users; an interval needs {LEAST_USERS} at least."
        )
    rows = effective_rows(weights)
    if not rows >= LEAST_ROWS:  # also where a weight is not a number
        raise NotCertifiedError(
            f"The log's {len(weights)} rows say as much about the other method as {rows:.1f} of "
            f"its own, fewer than {LEAST_ROWS}: the two overlap too little; log more, or explore."
        )
    mean = _ratio(weights, np.ones(len(weights)), users)
    error = (mean.high - mean.estimate) / student.ppf(0.5 + LEVEL / 2, n_users - 1)
    if mean.estimate + TOO_FAR * error < 1.0:
        raise NotCertifiedError(
            f"Of what the other method does, the log shows {100 * mean.estimate:.0f} %: the rest "
            "was never shown, and nothing is known of it; let the logged method explore."
        )


def _ratio(
    top: Float[ndarray, " rows"], bottom: Float[ndarray, " rows"], users: Int[ndarray, " rows"]
) -> Interval:
    """Sum of `top` over sum of `bottom`; the interval is over users."""
    _, places = np.unique(users, return_inverse=True)
    value = float(top.sum() / bottom.sum())
    residuals = np.bincount(places, weights=top - value * bottom)
    n = len(residuals)
    error = np.sqrt(n / (n - 1) * (residuals**2).sum()) / abs(bottom.sum())
    half = float(student.ppf(0.5 + LEVEL / 2, n - 1) * error)
    return Interval(value, value - half, value + half, len(top), n)


def read_log(path: Path) -> Log:
    """The log in a JSONL file; see the module for its rows.

    Raises:
        InvalidInputError: the file is missing or empty, or a row lacks a field or a number.
    """
    lines = numbered_jsonl(path, what="log")
    names: dict[str, int] = {}
    columns: dict[str, list[float]] = {name: [] for name in (*FIELDS, *MODEL_FIELDS)}
    has_model = bool(lines) and all(name in next(iter(lines.values())) for name in MODEL_FIELDS)
    for number, row in lines.items():
        user = row.get("user_id")
        if not isinstance(user, str | int) or not str(user):
            raise InvalidInputError(f"Line {number} of the log {str(path)!r} has no 'user_id'.")
        for name in (*FIELDS, *(MODEL_FIELDS if has_model else ())):
            if not is_finite_number(row.get(name)):
                raise InvalidInputError(
                    f"Line {number} of the log {str(path)!r} has the {name!r} {row.get(name)!r}; "
                    "give a finite number, or leave the row out."
                )
            columns[name].append(float(row[name]))
        names.setdefault(str(user), len(names))
    if not lines:
        raise InvalidInputError(f"The log {str(path)!r} is empty; give one row for each answer.")
    users = np.array([names[str(row["user_id"])] for row in lines.values()])
    arrays = [np.array(columns[name]) for name in FIELDS]
    model = [np.array(columns[name]) if has_model else None for name in MODEL_FIELDS]
    return Log(users, arrays[0], arrays[1], arrays[2], *model)


def judged_rows(export: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of a user's export that wait for `target_log_prob`.

    Thumbs under their own key (`RESPONSE/thumbs/ANSWER`) that were not withdrawn are rewards of 0
    and 1; answers whose probability is not known are left out.
    """
    rewards = {
        item["key"]: item["label"]
        for item in export["feedback"]
        if item["kind"] == "thumbs" and item.get("withdrawn_at") is None
    }
    return [
        {
            "user_id": export["user"],
            "prompt": response["prompt"],
            "completion": response["shown"][place],
            "reward": rewards[key],
            "log_prob": log_prob,
        }
        for response in export["responses"]
        for place, log_prob in enumerate(response.get("log_probs") or ())
        if (key := f"{response['id']}/thumbs/{place}") in rewards
    ]


@dataclass(frozen=True)
class World:
    """Users with known preferences who are shown one of a few answers and judge it.

    Attributes:
        n_users: Of a log.
        n_rows: Of each user.
        n_answers: To choose from.
        explored: Share of logged answers that are chosen evenly.
        never_shown: How many of the answers the logged method never shows.
    """

    n_users: int = 100
    n_rows: int = 10
    n_answers: int = 5
    explored: float = 0.4
    never_shown: int = 0

    def users(self, n: int, *, generator: np.random.Generator) -> Float[ndarray, "users answers"]:
        """`[users, answers]`: log-odds that each user likes each answer."""
        common = np.linspace(-0.8, 0.8, self.n_answers)
        return common + 0.8 * generator.standard_normal((n, self.n_answers))

    def logged(self, liking: Float[ndarray, "users answers"]) -> Float[ndarray, "users answers"]:
        """`[users, answers]`: probabilities under the logged method."""
        open_ = np.arange(self.n_answers) >= self.never_shown
        chosen = softmax(np.where(open_, liking, -np.inf), axis=1)
        return self.explored * open_ / open_.sum() + (1.0 - self.explored) * chosen

    def target(self, liking: Float[ndarray, "users answers"]) -> Float[ndarray, "users answers"]:
        """`[users, answers]`: probabilities under the other method, which follows users more."""
        return 0.2 / self.n_answers + 0.8 * softmax(2.0 * liking, axis=1)

    def truth(self, *, generator: np.random.Generator) -> float:
        """Mean reward of the other method over very many users."""
        liking = self.users(400_000, generator=generator)
        return float((self.target(liking) * expit(liking)).sum(axis=1).mean())

    def log(self, *, generator: np.random.Generator) -> Log:
        """A log; the model is the mean reward of each answer among the other half of users."""
        liking = np.repeat(self.users(self.n_users, generator=generator), self.n_rows, axis=0)
        users = np.repeat(np.arange(self.n_users), self.n_rows)
        chances, wanted = self.logged(liking), self.target(liking)
        edges = chances.cumsum(axis=1)
        shown = (generator.random(len(users))[:, None] > edges / edges[:, -1:]).sum(axis=1)
        rows = np.arange(len(users))
        rewards = (generator.random(len(users)) < expit(liking[rows, shown])).astype(np.float64)
        model = np.zeros(liking.shape)
        for half in (0, 1):
            other = users % 2 != half
            sums = np.bincount(shown[other], weights=rewards[other], minlength=self.n_answers)
            counts = np.bincount(shown[other], minlength=self.n_answers)
            model[~other] = (sums + 1.0) / (counts + 2.0)
        return Log(
            users,
            rewards,
            np.log(chances[rows, shown]),
            np.log(wanted[rows, shown]),
            model[rows, shown],
            (wanted * model).sum(axis=1),
        )


def coverage(world: World, *, n_logs: int, seed: int) -> dict[str, Any]:
    """How often the intervals of simulated logs cover the truth, and how wide they are."""
    truth = world.truth(generator=generator_for(seed, "truth"))
    covered: dict[str, list[bool]] = {}
    halves: dict[str, list[float]] = {}
    n_refused = 0
    for place in range(n_logs):
        try:
            values = off_policy_values(world.log(generator=generator_for(seed, "log", place)))
        except NotCertifiedError:
            n_refused += 1
            continue
        for name, value in values.items():
            covered.setdefault(name, []).append(value.low <= truth <= value.high)
            halves.setdefault(name, []).append((value.high - value.low) / 2)
    return {
        "n_logs": n_logs,
        "n_refused": n_refused,
        "truth": truth,
        "covered": {name: float(np.mean(own)) for name, own in covered.items()},
        "half_width": {name: float(np.mean(own)) for name, own in halves.items()},
    }


def require_covered(result: Mapping[str, Any]) -> None:
    """Return where each estimator's intervals cover as often as they say; else CheckFailedError."""
    for name, share in result["covered"].items():
        if not COVERED[0] <= share <= COVERED[1]:
            raise CheckFailedError(
                f"Intervals of {name} cover {100 * share:.1f} % of {result['n_logs']} truths."
            )


def main(
    log: Annotated[
        Path | None, typer.Argument(help="JSONL, or a user's export; simulated where absent.")
    ] = None,
    *,
    logs: Annotated[int, typer.Option(min=1, help="Simulated logs.")] = 400,
    never_shown: Annotated[
        int, typer.Option(min=0, max=4, help="Simulated answers that are never logged.")
    ] = 0,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """The value of another method from a log, or how often such intervals cover the truth."""
    if log is not None and log.suffix == ".json":
        for row in judged_rows(read_json(log, what="export")):
            typer.echo(dump_json(row, indent=None))
        return
    if log is not None:
        values = off_policy_values(read_log(log))
        print_result({name: value.to_json() for name, value in values.items()}, is_json=is_json)
        return
    result = coverage(World(never_shown=never_shown), n_logs=logs, seed=seed)
    print_result(result, is_json=is_json)
    require_covered(result)


if __name__ == "__main__":
    run(main)
