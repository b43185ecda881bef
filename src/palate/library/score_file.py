"""Log-probabilities of the answers in a file, each under the plan decided for its prompt."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.core.decision import Decision, Known
from palate.core.errors import InvalidInputError
from palate.library.generate import score_all
from palate.library.library import Library
from palate.rewards.rows import read_rows, texts_of
from palate.rewards.texts import messages_of


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

    Rows have `prompt` and `completion` (or `answer`), text or messages as in
    `palate.rewards.rows`; `is_ended` counts end tokens.

    Raises:
        InvalidInputError: the file is missing, empty or lacks a text; or see `Library.decide`.
    """
    rows, places = read_rows(path, what="file of answers")
    if not rows:
        raise InvalidInputError(
            f"The file of answers {str(path)!r} is empty; give at least one row."
        )
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
