"""Measures of form: what an objective is, without training. All count whole sentences only.

They are other measures of the same thing than the rules that teach *concise* and *informative*, and
another family than the learned rewards of the others. `libraries.evaluate` has them from here.
"""

import zlib
from collections.abc import Callable
from functools import partial

from palate.rewards.rules import reading_ease
from palate.rewards.sentences import unbroken_share, whole_sentences, whole_share
from palate.rewards.texts import words_of

_SHORT, _LONG = 60, 420  # characters: brevity's ramp
_THIN, _DENSE = 60, 300  # compressed bytes: density's ramp
_HARD, _EASY = 30.0, 90.0  # Flesch's reading ease
_MOST = 3  # different words of a list that are worth 1
COURTEOUS = frozenset(
    words_of(
        "please thank thanks glad happy welcome wonderful great appreciate sorry kind lovely hope "
        "delighted pleasure friend enjoy"
    )
)
RUDE = frozenset(
    words_of(
        "stupid idiot dumb ridiculous nonsense useless pathetic obviously hate lazy waste garbage "
        "annoying terrible silly boring whatever worthless"
    )
)


def brevity(answer: str) -> float:
    """Few characters, [0, 1], times the share in whole sentences."""
    share = min(1.0, max(0.0, (_LONG - len(answer)) / (_LONG - _SHORT)))
    return share * whole_share(answer)


def density(answer: str) -> float:
    """Bytes of the whole sentences after compression, [0, 1]: what is repeated counts once."""
    size = len(zlib.compress(" ".join(whole_sentences(answer)).encode(), 9)) if answer else 0
    return min(1.0, max(0.0, (size - _THIN) / (_DENSE - _THIN)))


def ease(answer: str, *, is_wanted: bool) -> float:
    """Flesch's reading ease of the whole sentences, [0, 1], times their share."""
    text = " ".join(whole_sentences(answer))
    if not text:
        return 0.0
    share = min(1.0, max(0.0, (reading_ease(text) - _HARD) / (_EASY - _HARD)))
    return (share if is_wanted else 1.0 - share) * unbroken_share(answer)


def listed(answer: str, words: frozenset[str]) -> float:
    """How many different words of a list the answer has, [0, 1], times the whole share."""
    return min(1.0, len(words.intersection(words_of(answer))) / _MOST) * unbroken_share(answer)


FORMS: dict[str, Callable[[str], float]] = {
    "elementary": partial(ease, is_wanted=True),
    "expert": partial(ease, is_wanted=False),
    "concise": brevity,
    "informative": density,
    "friendly": partial(listed, words=COURTEOUS),
    "unfriendly": partial(listed, words=RUDE),
}
