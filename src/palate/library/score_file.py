"""Log-probabilities of the answers in a file, each under the plan decided for its prompt."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.core.decision import Decision, Known
from palate.core.errors import InvalidInputError
from palate.library.generate import score_all
from palate.library.library import Library
from palate.rewards.rows import read_rows


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
    library: Library,
    path: Path,
    *,
    known: Known | None = None,
    method: str = "auto",
    is_ended: bool = True,
) -> ScoredFile:
    """Log-probabilities of the answers in a file.

    Rows have strings `prompt` and `completion` (or `answer`); `is_ended` counts end tokens.

    Raises:
        InvalidInputError: the file is missing, empty or lacks a text; or see `Library.decide`.
    """
    rows, _ = read_rows(path, what="file of answers")
    if not rows:
        raise InvalidInputError(
            f"The file of answers {str(path)!r} is empty; give at least one row."
        )
    prompts, texts = zip(*(_pair(row, n, path) for n, row in enumerate(rows, start=1)), strict=True)
    decisions = [library.decide(prompt, known, method=method) for prompt in prompts]
    scores = score_all(library, decisions, texts, is_ended=is_ended)
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


def _pair(row: dict[str, Any], number: int, path: Path) -> tuple[str, str]:
    prompt, text = row.get("prompt"), row.get("completion", row.get("answer"))
    if not isinstance(prompt, str) or not isinstance(text, str):
        raise InvalidInputError(
            f"Row {number} of {str(path)!r} lacks a 'prompt' or a 'completion' that is a string."
        )
    return prompt, text
