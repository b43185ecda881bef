"""The words that gold rewards count: simple, technical, warm and cold ones."""

import re
from functools import cache

from research.world.facts import CATEGORIES, Wordings
from research.world.tones import CLOSINGS, OPENINGS

_WORD = re.compile(r"[a-z]+")


def words_of(text: str) -> list[str]:
    """The words, lower case, without signs."""
    return _WORD.findall(text.lower())


WARM_WORDS = frozenset(
    words_of(
        "delight dear enjoy friend glad great happy hello lovely please smile thank welcome "
        "wonderful"
    )
)
COLD_WORDS = frozenset(
    words_of("alone away bore boring bother dull fool lazy nonsense silly stop stupid ugh wasting")
)
# Words without content of their own, which would otherwise count for the wording that has them.
_FUNCTION_WORDS = frozenset(
    words_of(
        "a all along an and as at be by can could does for from get gets go goes has have in into "
        "is it its lots many must no not of on or out over so that the through to under up us used "
        "via was where with within you"
    )
)


@cache
def marked_words() -> tuple[frozenset[str], frozenset[str]]:
    """Words that only simple, and words that only technical wordings use.

    Function words, topic names and words of the tone sentences are in neither.
    """
    simple, technical = set[str](), set[str]()
    neither = set(_FUNCTION_WORDS)
    for category in CATEGORIES:
        neither.update(words_of(" ".join([*category.variants, *category.heads])))
        fillings: list[Wordings] = [*category.variants.values()]
        for slots in category.heads.values():
            fillings += slots.values()
        for plain, learned in [*category.facts, *fillings]:
            simple.update(_without_slots(plain))
            technical.update(_without_slots(learned))
    for sentences in [*OPENINGS.values(), *CLOSINGS.values()]:
        neither.update(words_of(" ".join(sentences)))
    return frozenset(simple - technical - neither), frozenset(technical - simple - neither)


def _without_slots(template: str) -> list[str]:
    return words_of(re.sub(r"\{\w+\}", " ", template))
