"""Answers of a form that is asked for: which tokens may come next, by a JSON schema.

A constraint acts on the pooled distribution, after all rows and before temperature, top-k and
top-p: tokens that would leave the form get probability zero, and the end is allowed where the form
is complete. Log-probabilities that are reported stay those of the plan. JSON is written on one
line, with one space after a comma and a colon, so that no answer ends in white space.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from palate.core.errors import InvalidInputError, MissingExtraError
from palate.engine.request import RunningRequest
from palate.models.load import Base

SPACING: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
MAX_SCHEMA = 32_768  # characters; reading one takes time that grows with the square of its keys
MAX_SHOWN = 200  # characters of the parser's reason


class JsonConstraint:
    """Tokens that keep an answer a beginning of JSON by a schema; see `Constraint`."""

    def __init__(self, matcher: Any) -> None:
        """Keep llguidance's parser in its present state."""
        self._matcher = matcher

    def copy(self) -> "JsonConstraint":
        """The same in the same state, for one more answer."""
        return JsonConstraint(self._matcher.deep_copy())

    def allowed(self) -> Bool[np.ndarray, " vocab"]:
        """`[vocab]`, the tokens that may come next.

        Raises:
            InvalidInputError: the schema is too complex to follow.
        """
        mask = np.frombuffer(self._matcher.compute_logit_bias(), dtype=np.uint8) > 0
        if self._matcher.is_error() or not mask.any():
            reason = _first_line(self._matcher.get_error())
            raise InvalidInputError(
                f"The answer cannot be kept to its JSON schema ({reason}); simplify the schema."
            )
        return mask

    def take(self, token: int) -> None:
        """Go on behind this token."""
        self._matcher.consume_token(token)


def json_constraint(base: Base, schema: Mapping[str, Any]) -> JsonConstraint:
    """The constraint to JSON by a schema.

    Raises:
        InvalidInputError: nothing satisfies the schema, it is too large, it has a keyword that is
            not supported, or the base's tokenizer is of a kind that is not.
        MissingExtraError: llguidance is not installed.
    """
    try:
        from llguidance import LLMatcher
    except ModuleNotFoundError as error:
        message = "Answers by a JSON schema need llguidance; install palate[serve]."
        raise MissingExtraError(message) from error
    tokenizer, text = _tokenizer(base), json.dumps(schema)
    if len(text) > MAX_SCHEMA:
        raise _refusal(f"it has {len(text)} characters, more than {MAX_SCHEMA}")
    try:
        grammar = LLMatcher.grammar_from_json_schema(text, overrides=SPACING)
    except ValueError as error:  # nested too deeply, or half a character
        raise _refusal(str(error)) from error
    matcher = LLMatcher(tokenizer, grammar, log_level=0)
    if matcher.is_error():
        raise _refusal(matcher.get_error())
    return JsonConstraint(matcher)


def _refusal(reason: str) -> InvalidInputError:
    sentence = f"The JSON schema cannot be followed ({_first_line(reason)}); change it."
    return InvalidInputError(sentence)


def constrained(
    log_probs: Float[Tensor, "requests vocab"], requests: Sequence[RunningRequest]
) -> Float[Tensor, "requests vocab"]:
    """The pooled distributions as they are sampled from, `[requests, vocab]`, not normalised.

    Biases are added, nats; a token that a request's constraint forbids gets minus infinity.

    Raises:
        InvalidInputError: a constraint cannot be followed.
    """
    if not any(running.is_constrained for running in requests):
        return log_probs
    scores = log_probs.clone()
    for place, running in enumerate(requests):
        for token, bias in running.request.logit_bias.items():
            scores[place, token] += bias
        if running.constraint is not None:
            mask = torch.tensor(running.constraint.allowed(), device=scores.device)
            scores[place].masked_fill_(~mask, -torch.inf)
    return scores


@lru_cache(maxsize=4)
def _tokenizer(base: Base) -> Any:
    from llguidance.hf import from_tokenizer

    tokenizer: Any = base.tokenizer
    try:
        return from_tokenizer(tokenizer, n_vocab=base.n_vocab, eos_token=sorted(base.stop_ids))
    except Exception as error:
        raise InvalidInputError(
            f"The tokenizer of the base {base.path!r} is of a kind for which JSON schemas cannot "
            f"be followed ({_first_line(str(error))}); leave response_format out."
        ) from error


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].rstrip(".")[:MAX_SHOWN] or "no token is left"
