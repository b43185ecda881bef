"""What vLLM sends of an answer: tokens by id, with log-probabilities."""

from dataclasses import dataclass
from typing import Any

from palate.core.errors import ProviderError

_ID_MARK = "token_id:"  # asked for by `return_tokens_as_token_ids`


@dataclass(frozen=True)
class Piece:
    """Some tokens of a stream.

    Attributes:
        tokens: Their ids.
        log_probs: Of each, before temperature and truncation.
        tops: Per token, the listed log-probabilities by id.
        finish: `stop` or `length` with the last one, otherwise `None`.
    """

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    tops: tuple[dict[int, float], ...]
    finish: str | None


def piece_of(choice: Any) -> Piece:
    """What a choice of a completion, or of a chunk of one, says.

    Raises:
        ProviderError: tokens are named by text.
    """
    listed: Any = choice.logprobs
    names = list(getattr(listed, "tokens", None) or [])
    if any(not str(name).startswith(_ID_MARK) for name in names):
        raise ProviderError(
            f"The server named the token {names[0]!r} by text, not by id; only vLLM and servers "
            "that know return_tokens_as_token_ids can be used."
        )
    return Piece(
        tokens=tuple(_id(name) for name in names),
        log_probs=tuple(float(value) for value in getattr(listed, "token_logprobs", None) or []),
        tops=tuple(
            {_id(name): float(value) for name, value in top.items()}
            for top in getattr(listed, "top_logprobs", None) or []
        ),
        finish=choice.finish_reason,
    )


def _id(name: str) -> int:
    return int(name.removeprefix(_ID_MARK))
