"""Rules, a learned reward and a language model against users' judgments.

The learned reward is fitted anew for every fold of questions, on the pairs of the other questions:
no pair that it is audited on, and no pair of the same question, has taught it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.files import JsonObject, dump_json, read_jsonl, write_json, write_text_atomic
from palate.core.progress import progress_of
from palate.core.seeds import generator_for
from palate.core.types import PreferencePair
from palate.metrics.intervals import Interval, bootstrap_interval
from palate.rewards.judge import ComparingJudge, EndpointJudge, Question, both_orders
from palate.rewards.light import fit_light
from palate.rewards.pairs import PairSet
from palate.rewards.settings import LightSettings
from research.command_line import IsJson, run
from research.statistics.audit import JudgeAudit, Judgments, audit_judge
from research.statistics.verdict_cache import CachedJudge, ScoreCache

CRITERION = "The answer is more helpful, more accurate and better written."
FEWEST_QUESTIONS = 10


@dataclass(frozen=True)
class AuditJob:
    """What is audited on what.

    Attributes:
        pairs: JSONL files with `prompt`, `chosen`, `rejected` and a column of questions.
        ties: JSONL with `prompt`, `response_a`, `response_b` where users called a tie, or `None`.
        question: Column whose equal values are one question.
        n_folds: Of questions, for the learned reward.
        ridge: Of the learned reward; `None` chooses it by cross-validation in every fold.
        url: Of an OpenAI-compatible endpoint to be audited too.
        model: Its model.
        cache: Where its verdicts are kept.
        seed: Of the folds.
    """

    pairs: tuple[Path, ...]
    ties: Path | None = None
    question: str = "question_id"
    n_folds: int = 5
    ridge: float | None = None
    url: str | None = None
    model: str | None = None
    cache: Path | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Audit:
    """All judges.

    Attributes:
        judges: One audit each.
        users: How often a user agrees with another user on the same two answers, or `None`.
        longer: How often users prefer the longer answer.
        n_judgments: Decided judgments.
        n_questions: Of them.
        n_users_ties: Judgments that were ties.
    """

    judges: tuple[JudgeAudit, ...]
    users: Interval | None
    longer: Interval
    n_judgments: int
    n_questions: int
    n_users_ties: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "n_judgments": self.n_judgments,
            "n_questions": self.n_questions,
            "n_users_ties": self.n_users_ties,
            "users_with_users": self.users and self.users.to_json(),
            "users_prefer_longer": self.longer.to_json(),
            "judges": [judge.to_json() for judge in self.judges],
        }


@dataclass(frozen=True, eq=False)
class ScoringJudge:
    """A judge that scores each answer alone; it cannot see which is shown first.

    Attributes:
        score: Prompts and answers to numbers; higher is better.
    """

    score: Callable[[Sequence[str], Sequence[str]], Float[ndarray, " texts"]]

    def compare(self, questions: Sequence[Question]) -> Float[ndarray, " questions"]:
        """The higher score wins; equal scores are a tie."""
        prompts = [question.prompt for question in questions]
        first = self.score(prompts, [question.first for question in questions])
        second = self.score(prompts, [question.second for question in questions])
        return np.where(first == second, 0.5, (first > second).astype(float))


class FirstShownJudge:
    """Prefers what is shown first: a control that the audit has to catch."""

    def compare(self, questions: Sequence[Question]) -> Float[ndarray, " questions"]:
        """Always the first."""
        return np.ones(len(questions))


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """A learned reward that has not seen the question it judges.

    Attributes:
        models: Question to the judge fitted without it.
        questions: `(prompt, answers)` to question, since a judge is shown texts only.
    """

    models: Mapping[str, ScoringJudge]
    questions: Mapping[tuple[str, frozenset[str]], str] = field(repr=False)

    def compare(self, questions: Sequence[Question]) -> Float[ndarray, " questions"]:
        """Each question by the model of its fold."""
        found = np.zeros(len(questions))
        owners = [self.questions[q.prompt, frozenset((q.first, q.second))] for q in questions]
        groups: dict[int, list[int]] = {}
        for place, owner in enumerate(owners):
            groups.setdefault(id(self.models[owner]), []).append(place)
        for places in groups.values():
            judge = self.models[owners[places[0]]]
            found[places] = judge.compare([questions[k] for k in places])
        return found


def audit(job: AuditJob) -> Audit:
    """Every judge against users.

    Raises:
        InvalidInputError: a file is missing, a column is, or there are too few questions.
        ProviderError: the endpoint failed.
    """
    rows = [row for path in job.pairs for row in read_jsonl(path, what="file of judgments")]
    _require_columns(rows, ("prompt", "chosen", "rejected", job.question))
    ties = read_jsonl(job.ties, what="file of ties") if job.ties is not None else []
    _require_columns(ties, ("prompt", "response_a", "response_b", job.question))
    questions = tuple(str(row[job.question]) for row in rows)
    if len(set(questions)) < FEWEST_QUESTIONS:
        raise InvalidInputError(
            f"The judgments are of {len(set(questions))} questions; an audit needs at least "
            f"{FEWEST_QUESTIONS} to resample."
        )
    lengths = np.array([len(row["chosen"]) - len(row["rejected"]) for row in rows])
    judgments = Judgments(questions, lengths > 0)
    judges: dict[str, ComparingJudge] = {
        "longer wins": ScoringJudge(lambda _p, answers: np.array([float(len(a)) for a in answers])),
        "first shown wins (control)": FirstShownJudge(),
        "light reward, other questions' pairs": _cross_fitted(job, rows, ties),
    }
    if job.url is not None and job.model is not None:
        judge = EndpointJudge.connect(url=job.url, model=job.model)
        judges[job.model] = CachedJudge(judge, ScoreCache(job.cache)) if job.cache else judge
    return Audit(
        judges=tuple(
            _audited(name, judge, rows, ties, judgments, job) for name, judge in judges.items()
        ),
        users=_users_with_users(rows, job),
        longer=bootstrap_interval(
            judgments.is_longer.astype(float),
            clusters=questions,
            generator=generator_for(0, "people", "longer"),
        ),
        n_judgments=len(rows),
        n_questions=len(set(questions)),
        n_users_ties=len(ties),
    )


def write_audit(found: Audit, folder: Path, *, command: str) -> None:
    """Write `judge-audit.md` and `judge-audit.json` into the folder."""
    write_json(folder / "judge-audit.json", found.to_json())
    write_text_atomic(folder / "judge-audit.md", render_audit(found, command=command))


def render_audit(found: Audit, *, command: str) -> str:
    """The audit as Markdown."""
    lines = [
        "# Judges against users",
        "",
        f"`{command}`: {found.n_judgments} decided judgments and {found.n_users_ties} ties of "
        f"{found.n_questions} questions. Every comparison was asked in both orders; a verdict that "
        "follows the order counts as a tie, and a tie as half right. Brackets: 95 % intervals, "
        "whole questions resampled.",
        "",
        f"Users prefer the longer answer in {_text(found.longer)}"
        + (
            f"; two users who judged the same two answers agree in {_text(found.users)} "
            f"(n = {found.users.n})."
            if found.users is not None
            else "."
        ),
        "",
        "| judge | agrees with users | flips with the order | its own ties | prefers the longer | "
        "agrees where users chose the longer | the shorter | gap | longer where users tie |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.judge} | {_text(one.agreement)} | {_text(one.flips)} | {one.n_ties} | "
        f"{_text(one.longer) if one.longer.n else 'never decides'} | {_text(one.if_longer)} | "
        f"{_text(one.if_shorter)} | {_text(one.length_gap)} | "
        f"{_text(one.on_ties) if one.on_ties is not None else ''} |"
        for one in found.judges
    ]
    return "\n".join([*lines, ""])


def _audited(
    name: str,
    judge: ComparingJudge,
    rows: Sequence[JsonObject],
    ties: Sequence[JsonObject],
    judgments: Judgments,
    job: AuditJob,
) -> JudgeAudit:
    questions = [_question(row["prompt"], row["chosen"], row["rejected"]) for row in rows]
    asked = both_orders(judge, questions)
    on_ties = None
    if ties:
        ordered = [sorted((row["response_a"], row["response_b"]), key=len) for row in ties]
        shown = [
            _question(row["prompt"], longer, shorter)
            for row, (shorter, longer) in zip(ties, ordered, strict=True)
        ]
        on_ties = (both_orders(judge, shown).verdicts, [str(row[job.question]) for row in ties])
    return audit_judge(
        name,
        verdicts=asked.verdicts,
        is_flipped=asked.shown_first != asked.shown_second,
        judgments=judgments,
        on_ties=on_ties,
    )


def _cross_fitted(
    job: AuditJob, rows: Sequence[JsonObject], ties: Sequence[JsonObject]
) -> CrossFitted:
    names = sorted({str(row[job.question]) for row in [*rows, *ties]})
    order = generator_for(job.seed, "folds").permutation(len(names))
    folds = [{names[k] for k in part} for part in np.array_split(order, job.n_folds)]
    models: dict[str, ScoringJudge] = {}
    with progress_of("light reward, folds") as report:
        for place, fold in enumerate(folds, start=1):
            kept = [row for row in rows if str(row[job.question]) not in fold]
            pairs = PairSet(
                "preferred",
                tuple(PreferencePair(r["prompt"], r["chosen"], r["rejected"]) for r in kept),
                tuple(str(row[job.question]) for row in kept),
            )
            model = fit_light(pairs, settings=LightSettings(ridge=job.ridge), seed=job.seed)
            judge = ScoringJudge(model.raw)
            models |= dict.fromkeys(fold, judge)
            report(place, len(folds))
    owners = {
        (row["prompt"], frozenset((row["chosen"], row["rejected"]))): str(row[job.question])
        for row in rows
    }
    owners |= {
        (row["prompt"], frozenset((row["response_a"], row["response_b"]))): str(row[job.question])
        for row in ties
    }
    return CrossFitted(models, owners)


def _users_with_users(rows: Sequence[JsonObject], job: AuditJob) -> Interval | None:
    """Agreement of each judgment with the others of the same two answers, ties left out."""
    groups: dict[tuple[str, frozenset[str]], list[JsonObject]] = {}
    for row in rows:
        pair = frozenset((row["chosen"], row["rejected"]))
        groups.setdefault((row["prompt"], pair), []).append(row)
    shares: list[float] = []
    questions: list[str] = []
    for group in groups.values():
        for one in group:
            others = [row for row in group if row.get("user_id") != one.get("user_id")]
            if others:
                shares.append(float(np.mean([row["chosen"] == one["chosen"] for row in others])))
                questions.append(str(one[job.question]))
    if len(set(questions)) < FEWEST_QUESTIONS:
        return None
    return bootstrap_interval(
        shares, clusters=questions, generator=generator_for(0, "people", "agreement")
    )


def _question(prompt: str, first: str, second: str) -> Question:
    return Question(prompt, first, second, CRITERION)


def _require_columns(rows: Sequence[JsonObject], names: Sequence[str]) -> None:
    for number, row in enumerate(rows, start=1):
        missing = [name for name in names if name not in row]
        if missing:
            raise InvalidInputError(f"Row {number} of the judgments lacks {missing[0]!r}; add it.")


def _text(interval: Interval) -> str:
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def main(  # noqa: PLR0913  a command's options are its parameters
    pairs: Annotated[list[Path], typer.Argument(help="JSONL of judgments with question_id.")],
    *,
    ties: Annotated[Path | None, typer.Option(help="JSONL of judgments that were ties.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("reports"),
    ridge: Annotated[
        float | None, typer.Option(help="Of the light reward; chosen in each fold without it.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="OpenAI-compatible endpoint to audit.")] = None,
    model: Annotated[str | None, typer.Option(help="Its model.")] = None,
    cache: Annotated[Path | None, typer.Option(help="SQLite file for its verdicts.")] = None,
    is_json: IsJson = False,
) -> None:
    """Agreement with users, position flips and length bias of rules, a reward and a model."""
    if (url is None) != (model is None):
        raise InvalidInputError("An endpoint needs both --url and --model; give both or neither.")
    job = AuditJob(tuple(pairs), ties=ties, ridge=ridge, url=url, model=model, cache=cache)
    found = audit(job)
    names = " ".join(path.name for path in pairs)
    command = f"python -m research.statistics.judge_audit {names}"
    command += f" --ties {ties.name}" if ties else ""
    command += f" --ridge {ridge:g}" if ridge is not None else ""
    write_audit(found, out, command=command)
    typer.echo(dump_json(found.to_json()) if is_json else render_audit(found, command=command))


if __name__ == "__main__":
    run(main)
