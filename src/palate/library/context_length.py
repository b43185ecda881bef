"""Whether a text fits into what the base can read."""

from palate.core.errors import InvalidInputError
from palate.models.chat import encode_prompt
from palate.models.load import Base


def require_room_for_prompt(base: Base, prompt: str) -> None:
    """Return if the prompt, as the base reads it, leaves room for an answer.

    Raises:
        InvalidInputError: it has as many tokens as the base has positions, or more.
    """
    most = base.n_positions
    if most is None:
        return
    n_tokens = len(encode_prompt(base, prompt))
    if n_tokens >= most:
        raise InvalidInputError(
            f"The prompt has {n_tokens} tokens, but the base reads {most} with the answer; "
            "shorten it."
        )


def require_room_for_answers(base: Base, max_tokens: int, *, key: str) -> None:
    """Return if answers of so many tokens fit.

    Raises:
        InvalidInputError: they are as long as what the base reads, or longer.
    """
    most = base.n_positions
    if most is not None and max_tokens >= most:
        raise InvalidInputError(
            f"The key {key!r} has the value {max_tokens}, but the base reads {most} tokens with "
            "the prompt; use a smaller one."
        )
