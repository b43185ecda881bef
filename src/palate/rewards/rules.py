"""Rules: rewards that are written down, not learned.

Each rule is a fixed function of the answer into [0, 1]; its scale is its definition, so it needs
no calibration. In a run file:

    rewards:
      brief: {kind: length, unit: words, low: 10, high: 60, prefer: shorter}
      hedged: {kind: words, words: [perhaps, maybe, might], most: 3}
      sourced: {kind: pattern, pattern: "https?://", most: 1}
      plain: {kind: readability, low: 30, high: 90}
      informative: {kind: content, low: 10, high: 60}

A rule reads surface only, and whatever is trained on it will find the cheapest text that obeys it:
the empty answer is brief, and full stops inside words read easily. With `whole_sentences: true` a
rule counts what stands in whole sentences only (`palate.rewards.sentences`, English).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
from jaxtyping import Float
from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from palate.core.errors import InvalidInputError
from palate.core.files import hash_value
from palate.core.settings import Settings
from palate.rewards.sentences import content_words, whole_sentences, whole_share
from palate.rewards.texts import WORD, count_sentences, require_equally_many, words_of

_VOWELS = re.compile(r"[aeiouy]+")

Share = Annotated[float, Field(ge=0, le=1)]


class _Ramp(Settings):
    """Straight from `low` to `high`, flat outside."""

    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise InvalidInputError(f"low ({self.low}) is not below high ({self.high})")
        return self

    def _share(self, count: float) -> float:
        return min(1.0, max(0.0, (count - self.low) / (self.high - self.low)))


class _Occurrences(Settings):
    """Number of occurrences, up to `most`, divided by `most`."""

    most: int = Field(default=1, ge=1)  # occurrences that are worth 1
    is_wanted: bool = True  # whether they raise the reward; otherwise none is worth 1

    def _worth(self, n: int) -> float:
        share = min(self.most, n) / self.most
        return share if self.is_wanted else 1.0 - share


class LengthRule(_Ramp):
    """Longer or shorter: straight from `low` to `high`, flat outside."""

    kind: Literal["length"]
    unit: Literal["characters", "words", "sentences"] = "words"
    low: float = Field(ge=0)  # count at one end
    high: float = Field(gt=0)  # count at the other end; greater than `low`
    prefer: Literal["longer", "shorter"]  # which end is worth 1
    # longer: count whole sentences only. Shorter: count everything, and multiply by the share of
    # words in whole sentences; an answer without one is worth 0
    whole_sentences: bool = False

    def value(self, answer: str) -> float:
        """Worth of the answer in [0, 1]."""
        counts = {"characters": len, "words": _count_words, "sentences": count_sentences}
        count = counts[self.unit]
        if self.prefer == "longer":
            whole = whole_sentences(answer) if self.whole_sentences else [answer]
            return self._share(count(" ".join(whole))) if whole else 0.0
        return (1.0 - self._share(count(answer))) * (
            whole_share(answer) if self.whole_sentences else 1.0
        )


class ContentRule(_Ramp):
    """Number of different content words in whole sentences: straight from `low` to `high`.

    Content words have more than three letters and are no English function words. Said again, or in
    a broken sentence, a word adds nothing.
    """

    kind: Literal["content"]
    low: float = Field(ge=0)
    high: float = Field(gt=0)

    def value(self, answer: str) -> float:
        """Worth of the answer in [0, 1]."""
        return self._share(len(content_words(" ".join(whole_sentences(answer)))))


class WordsRule(_Occurrences):
    """Whole words from a list, in any case."""

    kind: Literal["words"]
    words: tuple[str, ...] = Field(min_length=1)

    @field_validator("words")
    @classmethod
    def _single(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        for word in words:
            if not WORD.fullmatch(word):
                raise InvalidInputError(f"{word!r} is not one word; use the rule `pattern`")
        return tuple(word.lower() for word in words)

    def value(self, answer: str) -> float:
        """Worth of the answer in [0, 1]."""
        listed = set(self.words)
        return self._worth(sum(word in listed for word in words_of(answer)))


class PatternRule(_Occurrences):
    """Matches of a regular expression."""

    kind: Literal["pattern"]
    # `(?i)` is any case. Nested repetitions can take exponential time: use patterns you trust
    pattern: str = Field(min_length=1)

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise InvalidInputError(f"it is not a regular expression ({error})") from error
        return pattern

    def value(self, answer: str) -> float:
        """Worth of the answer in [0, 1]."""
        return self._worth(sum(1 for _ in re.finditer(self.pattern, answer)))


class ReadabilityRule(_Ramp):
    """Easy or hard English by Flesch's reading ease: straight from `low` to `high`.

    `206.835 - 1.015 words per sentence - 84.6 syllables per word`; syllables are runs of vowels
    but for a silent final e. An empty answer is worth 0.

    Source: Flesch 1948, "A New Readability Yardstick".
    """

    kind: Literal["readability"]
    low: float = 0.0  # reading ease at one end; 30 is very difficult
    high: float = 100.0  # reading ease at the other end; 90 is very easy
    prefer: Literal["easy", "hard"] = "easy"  # which end is worth 1
    whole_sentences: bool = False  # read whole sentences; 0 unless most words are in one

    def value(self, answer: str) -> float:
        """Worth of the answer in [0, 1]."""
        if self.whole_sentences:
            most = whole_share(answer) > 0.5
            answer = " ".join(whole_sentences(answer)) if most else ""
        if not WORD.search(answer):
            return 0.0
        share = self._share(reading_ease(answer))
        return share if self.prefer == "easy" else 1.0 - share


Rule = Annotated[
    LengthRule | WordsRule | PatternRule | ReadabilityRule | ContentRule,
    Field(discriminator="kind"),
]


@dataclass(frozen=True)
class RuleReward:
    """A rule as a reward."""

    objective: str
    rule: Rule

    @property
    def fingerprint(self) -> str:
        """Hash of the rule."""
        return hash_value(self.rule.model_dump())

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> Float[np.ndarray, " texts"]:
        """Rewards in [0, 1], `[texts]`; the prompts do not matter."""
        require_equally_many(prompts, answers)
        return np.array([self.rule.value(answer) for answer in answers], dtype=np.float64)


def rule_from(values: object, *, objective: str) -> RuleReward:
    """The rule in plain data, as in a run file; InvalidInputError where a key or value is wrong."""
    try:
        rule = TypeAdapter[Rule](Rule).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "kind"
        raise InvalidInputError(
            f"The rule of the objective {objective!r} is wrong at {key!r}: {first['msg']}."
        ) from error
    return RuleReward(objective, rule)


def reading_ease(text: str) -> float:
    """Flesch's reading ease of an English text with at least one word; higher is easier."""
    words = words_of(text)
    n_words = len(words)
    n_syllables = sum(count_syllables(word) for word in words)
    return 206.835 - 1.015 * n_words / count_sentences(text) - 84.6 * n_syllables / n_words


def count_syllables(word: str) -> int:
    """Runs of vowels, less a silent final e, at least one; right for about nine words in ten."""
    runs = len(_VOWELS.findall(word))
    is_silent = word.endswith("e") and not word.endswith(("le", "ee", "ie", "oe", "ye"))
    return max(1, runs - 1 if is_silent else runs)


def _count_words(text: str) -> int:
    return len(WORD.findall(text))
