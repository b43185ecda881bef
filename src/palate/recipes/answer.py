"""Answer a prompt in a person's taste, and score given answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.core.errors import InvalidInputError
from palate.core.protocols import Request, Sampling
from palate.core.seeds import derive_seed
from palate.core.types import Completion
from palate.models.bank import AdapterBank
from palate.models.chat import encode_answer, encode_prompt, format_messages
from palate.models.load import Base
from palate.models.logprobs import Scored, answer_log_probs
from palate.recipes.mixture_answer import controlled
from palate.recipes.mixture_open import has_controller
from palate.recipes.opened import Opened
from palate.recipes.room import require_room_for_prompt
from palate.recipes.ways import Asked, Chosen, choose
from palate.rewards.rows import read_rows


@dataclass(frozen=True)
class Answered:
    """Answers to one prompt, and how they came about.

    Attributes:
        chosen: Plan, way, coefficients, reason.
        completions: One per answer asked for.
    """

    chosen: Chosen
    completions: list[Completion]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "way": self.chosen.way,
            "coefficients": self.chosen.coefficients,
            "reason": self.chosen.reason,
            "plan": self.chosen.plan.to_json(),
            "answers": [
                {"text": c.text, "finish": c.finish, "n_tokens": len(c.tokens)}
                for c in self.completions
            ],
        }


def requests_for(
    opened: Opened, prompt: str, chosen: Chosen, *, sampling: Sampling, n: int, seed: int
) -> list[Request]:
    """`n` requests for one prompt under one plan, each with its own seed."""
    text = format_messages(opened.base, prompt)
    return [Request(text, chosen.plan, sampling, seed=one) for one in _seeds(n, seed=seed)]


def _seeds(n: int, *, seed: int) -> list[int]:
    return [derive_seed(seed, "answer", place) for place in range(n)]


def answer(
    opened: Opened, prompt: str, asked: Asked, *, sampling: Sampling, n: int = 1, seed: int = 0
) -> Answered:
    """Answers to a prompt in a person's taste.

    Raises:
        InvalidInputError: see `palate.recipes.ways.choose`; or no answers are asked for; or
            the prompt is longer than what the base reads.
    """
    if n < 1:
        raise InvalidInputError(f"{n} answers were asked for; ask for at least one.")
    require_room_for_prompt(opened.base, prompt)
    if asked.way == "mixture" and asked.coefficients is None and has_controller(opened):
        chosen, requests, engine = controlled(
            opened, prompt, asked.preference, sampling=sampling, seeds=_seeds(n, seed=seed)
        )
        return Answered(chosen, engine.generate(requests))
    portfolio = opened.portfolio if asked.way == "portfolio" else None
    chosen = choose(opened.library.manifest, asked, portfolio=portfolio)
    requests = requests_for(opened, prompt, chosen, sampling=sampling, n=n, seed=seed)
    return Answered(chosen, opened.engine.generate(requests))


@dataclass(frozen=True)
class ScoredFile:
    """Log-probabilities of given answers.

    Attributes:
        rows: The file's rows, each with `log_prob`, `n_tokens` and `log_probs` added.
        total: Sum over all tokens, nats.
        n_tokens: Of all answers.
    """

    rows: list[dict[str, Any]]
    total: float
    n_tokens: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "rows": self.rows,
            "log_prob": self.total,
            "n_tokens": self.n_tokens,
            "mean_log_prob": self.total / max(self.n_tokens, 1),
        }


def score_file(
    base: Base, bank: AdapterBank, path: Path, *, chosen: Chosen, is_ended: bool = True
) -> ScoredFile:
    """Log-probabilities of the answers in a file under a plan.

    Args:
        base: The base model.
        bank: The experts, possibly none.
        path: Rows with `prompt` and `completion` (or `answer`), strings.
        chosen: The plan.
        is_ended: Whether the end token counts as part of each answer.

    Raises:
        InvalidInputError: the file is missing or empty, or a row lacks a prompt or a completion.
    """
    rows, _ = read_rows(path, what="file of answers")
    if not rows:
        raise InvalidInputError(
            f"The file of answers {str(path)!r} is empty; give at least one row."
        )
    pairs = [_pair(row, number, path) for number, row in enumerate(rows, start=1)]
    items = _encode(base, pairs, is_ended=is_ended)
    found = answer_log_probs(base, bank, plans=[chosen.plan] * len(items), items=items)
    scored = [
        {**row, "log_prob": float(x.sum()), "n_tokens": len(x), "log_probs": x.tolist()}
        for row, x in zip(rows, found, strict=True)
    ]
    return ScoredFile(scored, sum(float(x.sum()) for x in found), sum(len(x) for x in found))


def _encode(base: Base, pairs: Sequence[tuple[str, str]], *, is_ended: bool) -> list[Scored]:
    texts = [(format_messages(base, prompt), answer) for prompt, answer in pairs]
    return [
        Scored(
            tuple(encode_prompt(base, text)),
            tuple(encode_answer(base, text, answer, is_ended=is_ended)),
        )
        for text, answer in texts
    ]


def _pair(row: Mapping[str, Any], number: int, path: Path) -> tuple[str, str]:
    prompt, text = row.get("prompt"), row.get("completion", row.get("answer"))
    if not isinstance(prompt, str) or not isinstance(text, str):
        raise InvalidInputError(
            f"Row {number} of {str(path)!r} lacks a 'prompt' or a 'completion' that is a string."
        )
    return prompt, text
