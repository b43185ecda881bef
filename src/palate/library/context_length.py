"""Checks against the context length of the base."""

from palate.core.errors import InvalidInputError
from palate.models.chat import encode_prompt
from palate.models.load import Base


def require_prompt_fits(base: Base, prompt: str) -> None:
    """Return if the prompt, formatted, leaves positions to answer; InvalidInputError where not."""
    most = base.n_positions
    if most is not None and (n_tokens := len(encode_prompt(base, prompt))) >= most:
        raise InvalidInputError(
            f"The prompt has {n_tokens} tokens, but the base reads {most} with the answer; "
            "shorten it."
        )


def require_answers_fit(base: Base, max_tokens: int, *, key: str) -> None:
    """Return if answers of so many tokens, set by `key`, fit; InvalidInputError where not."""
    most = base.n_positions
    if most is not None and max_tokens >= most:
        raise InvalidInputError(
            f"The key {key!r} has the value {max_tokens}, but the base reads {most} tokens with "
            "the prompt; use a smaller one."
        )
