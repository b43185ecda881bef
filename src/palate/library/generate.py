"""Answers and scores from a library: decide, execute, and keep the best candidate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from palate.core.decision import Decision, Messages
from palate.core.errors import InvalidInputError
from palate.core.protocols import Request, SamplingParams
from palate.core.seeds import derive_seed
from palate.core.types import Completion
from palate.engine.forced import plan_log_probs
from palate.engine.logprobs import Scored, answer_log_probs
from palate.library.candidates import Candidates, best_candidates, candidate_requests
from palate.library.context_length import require_room_for_prompt
from palate.models.chat import encode_answer, encode_prompt

if TYPE_CHECKING:
    from palate.library.library import Library


@dataclass(frozen=True)
class Output:
    """One answer, and how it came about.

    Attributes:
        text: The answer.
        decision: Method, plan, coefficients, reason.
        completion: Token ids, log-probabilities under the plan, why it ended.
        lead: Best of n: how far the kept candidate led the second, in the ranking's units.
        seed: That gives this answer again.
    """

    text: str
    decision: Decision
    completion: Completion
    lead: float = 0.0
    seed: int = 0

    @property
    def prompt(self) -> Messages:
        """The user's own conversation, without what a method added."""
        return self.decision.prompt

    @property
    def method(self) -> str:
        """The method that was taken; never `auto`."""
        return self.decision.method

    @property
    def reason(self) -> str:
        """Why, in a sentence or two."""
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
    """The probability of a given answer.

    Attributes:
        log_probs: One per token, nats.
        tokens: Token ids of the answer.
        decision: Under which plan.
    """

    log_probs: tuple[float, ...]
    tokens: tuple[int, ...]
    decision: Decision

    @property
    def log_prob(self) -> float:
        """Of the whole answer, nats."""
        return float(sum(self.log_probs))


def answer_seed(seed: int, *, place: int = 0) -> int:
    """The seed of the answer at this place among several answers to one prompt, at every door."""
    return derive_seed(seed, "answer", place)


def generate_all(
    library: "Library",
    decisions: Sequence[Decision],
    *,
    sampling: SamplingParams,
    seeds: Sequence[int],
) -> list[Output]:
    """One answer for each decision, all in one batch.

    Args:
        library: Base, bank and engine.
        decisions: What was decided.
        sampling: How tokens are sampled.
        seeds: One for each decision.

    Raises:
        InvalidInputError: a prompt is longer than what the base reads.
        FormatError: best of n needs a reward that the library does not have.
    """
    requests: list[Request] = []
    for decision, seed in zip(decisions, seeds, strict=True):
        text = library.format(decision.messages)
        require_room_for_prompt(library.base, text)
        request = Request(text, decision.plan, sampling, seed)
        requests += candidate_requests(request, n=decision.n_candidates)
    completions = library.engine.generate(requests)
    groups: list[Sequence[Completion]] = []
    start = 0
    for decision in decisions:
        groups.append(completions[start : start + decision.n_candidates])
        start += decision.n_candidates
    kept = best_candidates(
        library,
        [
            Candidates(decision, [one.text for one in own], [one.tokens for one in own])
            for decision, own in zip(decisions, groups, strict=True)
        ],
    )
    return [
        Output(own[best.index].text, decision, own[best.index], best.lead, seed)
        for decision, own, best, seed in zip(decisions, groups, kept, seeds, strict=True)
    ]


def score_all(
    library: "Library",
    decisions: Sequence[Decision],
    completions: Sequence[str],
    *,
    is_ended: bool = True,
) -> list[Score]:
    """Log-probabilities of given answers, each under its decision's plan.

    Best of n has no tractable probability; its plan, from which the candidates are drawn, is
    scored.

    Args:
        library: Base and bank.
        decisions: One for each answer's prompt.
        completions: The answers.
        is_ended: Count the end token as part of an answer.
    """
    base, bank = library.base, library.bank
    items: list[Scored] = []
    for decision, completion in zip(decisions, completions, strict=True):
        text = library.format(decision.messages)
        tokens = encode_answer(base, text, completion, is_ended=is_ended)
        items.append(Scored(tuple(encode_prompt(base, text)), tuple(tokens)))
    plans = [decision.plan for decision in decisions]
    if any(plan.pool.controller is not None for plan in plans):
        found = [
            plan_log_probs(base, bank, plan=plan, item=item, controllers=library.controllers)
            for plan, item in zip(plans, items, strict=True)
        ]
    else:
        found = answer_log_probs(base, bank, plans=plans, items=items)
    return [
        Score(tuple(float(value) for value in values), item.answer, decision)
        for values, item, decision in zip(found, items, decisions, strict=True)
    ]


def conversations(prompts: Messages | Sequence[Messages]) -> tuple[list[Messages], bool]:
    """The conversations that are meant, and whether it is just one.

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
