"""Which expert wrote what: shares and responsibilities of every token, as data and as a page.

The share `alpha_i` is the prior of expert i, the responsibility `rho_i = alpha_i p_i(v) / pi(v)`
its posterior given the token v. Where experts agree both are the same.

Source: mope.md 15.5, M1.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError
from palate.core.templates import render_template

_COLOURS = (  # Okabe and Ito's palette, distinguishable without red-green vision
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
    (110, 110, 110),
)


@dataclass(frozen=True)
class TokenStory:
    """One token of an answer."""

    text: str
    log_prob: float  # under the mixture, nats
    shares: tuple[float, ...]  # by expert, before the token
    responsibilities: tuple[float, ...]  # by expert, given the token


@dataclass(frozen=True)
class Explanation:
    """An answer, token by token."""

    prompt: str
    experts: tuple[str, ...]
    tokens: tuple[TokenStory, ...]

    def to_json(self) -> dict[str, Any]:
        """The explanation as plain data."""
        return {
            "prompt": self.prompt,
            "experts": list(self.experts),
            "mean_responsibilities": self.mean_responsibilities(),
            "tokens": [
                {
                    "text": token.text,
                    "log_prob": token.log_prob,
                    "shares": self._named(token.shares),
                    "responsibilities": self._named(token.responsibilities),
                }
                for token in self.tokens
            ],
        }

    def _named(self, values: Sequence[float]) -> dict[str, float]:
        return dict(zip(self.experts, values, strict=True))

    def mean_responsibilities(self) -> dict[str, float]:
        """Share of the tokens that each expert wrote, in expectation."""
        rows = np.array([token.responsibilities for token in self.tokens])
        return self._named(rows.mean(axis=0).tolist())


def explain(
    *,
    prompt: str,
    experts: Sequence[str],
    texts: Sequence[str],
    shares: Float[np.ndarray, "tokens experts"],
    expert_log_probs: Float[np.ndarray, "tokens experts"],
) -> Explanation:
    """The responsibilities of an answer's tokens, by Bayes' rule.

    There is one text per token. Columns of experts whose share is always zero may hold any number.

    Raises:
        InvalidInputError: the parts are of different sizes, empty, or a token was impossible.
    """
    if not (len(texts) == len(shares) == len(expert_log_probs) > 0):
        raise InvalidInputError(
            f"There are {len(texts)} texts, {len(shares)} rows of shares and "
            f"{len(expert_log_probs)} of log-probabilities; give one of each per token."
        )
    joint = np.where(shares > 0, shares * np.exp(expert_log_probs), 0.0)
    total = joint.sum(axis=1, keepdims=True)
    if shares.shape[1] != len(experts) or np.any(total <= 0):
        raise InvalidInputError("A token has no expert who can have written it.")
    columns = zip(texts, np.log(total[:, 0]), shares, joint / total, strict=True)
    tokens = tuple(
        TokenStory(text, float(log_prob), tuple(own.tolist()), tuple(wrote.tolist()))
        for text, log_prob, own, wrote in columns
    )
    return Explanation(prompt, tuple(experts), tokens)


def render_page(explanation: Explanation) -> str:
    """A page on its own: tokens coloured by who wrote them, underlined by who was asked."""
    page = render_template(
        Path(__file__).parent / "templates/explain.html.jinja",
        {},
        explanation=explanation,
        legend=render_legend(explanation),
        tokens=render_tokens(explanation),
    )
    return page + "\n"


def render_legend(explanation: Explanation) -> str:
    """Each expert in its colour with the share of tokens it wrote; `<span>` elements."""
    shares = explanation.mean_responsibilities()
    return "".join(
        f'<span style="background:{_rgb(colour)}">{escape(name)} {shares[name]:.0%}</span>'
        for name, colour in _colours(explanation).items()
    )


def render_tokens(explanation: Explanation) -> str:
    """The answer, each token on the colour of who wrote it; `<span>` elements with numbers."""
    colours = _colours(explanation)
    return "".join(_token(token, colours) for token in explanation.tokens)


def _colours(explanation: Explanation) -> dict[str, tuple[int, int, int]]:
    return dict(zip(explanation.experts, itertools.cycle(_COLOURS), strict=False))


def _token(token: TokenStory, colours: Mapping[str, tuple[int, int, int]]) -> str:
    mixed = np.array(token.responsibilities) @ np.array(list(colours.values()))
    names = list(colours)
    largest = colours[names[int(np.argmax(token.shares))]]
    numbers = "; ".join(
        f"{name}: asked {share:.0%}, wrote {wrote:.0%}"
        for name, share, wrote in zip(names, token.shares, token.responsibilities, strict=True)
    )
    style = f"background:{_rgb(mixed)};border-color:{_rgb(largest, alpha=1.0)}"
    return f'<span style="{style}" title="{escape(numbers)}">{escape(token.text)}</span>'


def _rgb(colour: Sequence[float] | np.ndarray, *, alpha: float = 0.45) -> str:
    red, green, blue = (round(float(part)) for part in colour)
    return f"rgba({red},{green},{blue},{alpha:g})"
