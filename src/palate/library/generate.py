"""Answers and scores of decisions: executed in one batch, the best candidate of each returned.

Scores are of one answer, or of all in a file, each under the plan decided for its prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from palate.core.decision import Decision, Known, Messages
from palate.core.errors import InvalidInputError
from palate.core.protocols import Request, SamplingParams
from palate.core.seeds import derive_seed
from palate.core.types import Completion
from palate.engine.forced import plan_log_probs
from palate.engine.logprobs import Scored, answer_log_probs
from palate.engine.protocol import Engine
from palate.library.candidates import Candidates, best_candidates, candidate_requests
from palate.models.chat import encode_answer, encode_prompt, require_prompt_fits
from palate.rewards.rows import read_rows, texts_of
from palate.rewards.texts import messages_of

if TYPE_CHECKING:
    from palate.library.library import Library


@dataclass(frozen=True)
class Output:
    """One answer, with its decision."""

    text: str
    decision: Decision  # method, plan, coefficients, reason
    completion: Completion  # token ids, log-probabilities under the plan, why it ended
    lead: float = 0.0  # best of n: lead over the second candidate, in the ranking's units
    seed: int = 0  # that gives this answer again

    @property
    def prompt(self) -> Messages:
        """The user's own conversation, without what a method added."""
        return self.decision.prompt

    @property
    def method(self) -> str:
        """The method that decided; never `auto`."""
        return self.decision.method

    @property
    def reason(self) -> str:
        """Why, in one or two sentences."""
        return self.decision.reason

    def to_json(self) -> dict[str, Any]:
        """The answer as plain data."""
        return {
            "text": self.text,
            "finish": self.completion.finish,
            "n_tokens": len(self.completion.tokens),
            "lead": self.lead,
        }


@dataclass(frozen=True)
class Score:
    """The probability of a given answer."""

    log_probs: tuple[float, ...]  # one per token, nats
    tokens: tuple[int, ...]  # ids
    decision: Decision  # whose plan was scored

    @property
    def log_prob(self) -> float:
        """Log-probability of the whole answer, nats."""
        return float(sum(self.log_probs))


def answer_seed(seed: int, *, place: int = 0) -> int:
    """Seed of the answer at this place among several to one prompt, at every door."""
    return derive_seed(seed, "answer", place)


def generate_all(
    library: "Library",
    decisions: Sequence[Decision],
    *,
    sampling: SamplingParams,
    seeds: Sequence[int],
    engine: Engine | None = None,
) -> list[Output]:
    """One answer for each decision, all in one batch.

    The library's rewards rank candidates; its own engine is the default.

    Raises:
        InvalidInputError: a prompt is longer than the base's context length, or the engine
            cannot execute a plan.
        FormatError: best of n needs a reward that the library does not have.
    """
    requests: list[Request] = []
    for decision, seed in zip(decisions, seeds, strict=True):
        text = library.format(decision.messages)
        require_prompt_fits(library.base, text)
        request = Request(text, decision.plan, sampling, seed)
        requests += candidate_requests(request, n=decision.n_candidates)
    completions = (engine or library.engine).generate(requests)
    rest = iter(completions)
    groups = [list(islice(rest, decision.n_candidates)) for decision in decisions]
    candidates = [
        Candidates(decision, [one.text for one in own], [one.tokens for one in own])
        for decision, own in zip(decisions, groups, strict=True)
    ]
    ranked = zip(decisions, groups, best_candidates(library, candidates), seeds, strict=True)
    return [
        Output(own[best.index].text, decision, own[best.index], best.lead, seed)
        for decision, own, best, seed in ranked
    ]


def execute_all(
    library: "Library",
    decisions: Sequence[Decision],
    *,
    seeds: Sequence[int],
    sampling: SamplingParams | None = None,
    engine: Engine | None = None,
) -> list[Output]:
    """The answers to decisions of `Library.decide`, of one user or many, in one batch.

    There is one seed for each; other arguments and errors as in `Library.generate`.
    """
    numbers = [answer_seed(seed) for seed in seeds]
    sampling = sampling or library.sampling
    return generate_all(library, decisions, sampling=sampling, seeds=numbers, engine=engine)


def score_all(
    library: "Library",
    decisions: Sequence[Decision],
    completions: Sequence[str],
    *,
    is_ended: bool = True,
) -> list[Score]:
    """Log-probabilities of given answers, each under its decision's plan.

    Best of n has no tractable probability: the plan that its candidates are sampled from is scored.
    `is_ended` counts the end token as part of an answer.
    """
    base, bank = library.base, library.bank
    items: list[Scored] = []
    for decision, completion in zip(decisions, completions, strict=True):
        text = library.format(decision.messages)
        tokens = encode_answer(base, text, completion, is_ended=is_ended)
        items.append(Scored(tuple(encode_prompt(base, text)), tuple(tokens)))
    plans = [decision.plan for decision in decisions]
    if any(plan.pool.controller is not None for plan in plans):
        scored = [
            plan_log_probs(base, bank, plan=plan, item=item, controllers=library.controllers)
            for plan, item in zip(plans, items, strict=True)
        ]
    else:
        scored = answer_log_probs(base, bank, plans=plans, items=items)
    return [
        Score(tuple(float(value) for value in values), item.answer, decision)
        for values, item, decision in zip(scored, items, decisions, strict=True)
    ]


def conversations(prompts: Messages | Sequence[Messages]) -> tuple[list[Messages], bool]:
    """The conversations, and whether there is just one, not in a list.

    A string is one prompt; a list of mappings is one conversation; any other list is a batch.

    Raises:
        InvalidInputError: the list is empty.
    """
    if isinstance(prompts, str):
        return [prompts], True
    listed = list(cast(Sequence[Any], prompts))
    if not listed:
        raise InvalidInputError("There are no prompts; give at least one.")
    if isinstance(listed[0], Mapping):
        return [cast(Messages, listed)], True
    return cast(list[Messages], listed), False


@dataclass(frozen=True)
class ScoredFile:
    """Log-probabilities of given answers, nats."""

    rows: list[dict[str, Any]]  # the file's, with `log_prob`, `n_tokens` and `log_probs` added
    decision: Decision  # for the first row; the others differ in their prompt alone

    def to_json(self) -> dict[str, Any]:
        """The scores as plain data."""
        log_prob = float(sum(row["log_prob"] for row in self.rows))
        n_tokens = sum(row["n_tokens"] for row in self.rows)
        return {
            "method": self.decision.method,
            "coefficients": dict(self.decision.coefficients),
            "reason": self.decision.reason,
            "rows": self.rows,
            "log_prob": log_prob,
            "n_tokens": n_tokens,
            "mean_log_prob": log_prob / max(n_tokens, 1),
        }


def score_file(
    library: "Library",
    path: Path,
    *,
    known: Known | None = None,
    method: str = "auto",
    is_ended: bool = True,
) -> ScoredFile:
    """Log-probabilities of the answers in a file.

    Rows have `prompt` and `completion` (or `answer`), text or messages as in
    `palate.rewards.rows`; `is_ended` counts end tokens.

    Raises:
        InvalidInputError: the file is missing, empty or lacks a text; or see `Library.decide`.
    """
    rows, places = read_rows(path, what="file of answers")
    named = [{"completion": row["answer"], **row} if "answer" in row else row for row in rows]
    pairs = [texts_of(r, "completion", place=place) for r, place in zip(named, places, strict=True)]
    decisions = [library.decide(messages_of(text), known, method=method) for text, _ in pairs]
    scores = score_all(library, decisions, [text for _, text in pairs], is_ended=is_ended)
    scored = [
        {
            **row,
            "log_prob": score.log_prob,
            "n_tokens": len(score.tokens),
            "log_probs": list(score.log_probs),
        }
        for row, score in zip(rows, scores, strict=True)
    ]
    return ScoredFile(scored, decisions[0])
