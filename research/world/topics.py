"""The topics that can be asked about, which of them are held out, and what is said of each.

A topic is a variant and a head of one category (`desert fox`). Held out are two variants of every
head, laid like a Latin square, so every word of a held-out topic is known from other topics while
the pair of words is not: in every category each head occurs with six of its eight variants in
training and with the other two only in the held-out set.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from research.world.facts import CATEGORIES, Category

SIMPLE, TECHNICAL = 0, 1  # positions within `Wordings`
MAX_FACTS = 5  # known of every topic, and so the most that an answer can tell
_HELD_OUT_SHIFTS = (0, 3)  # variant index minus head index, modulo the number of variants


@dataclass(frozen=True)
class Topic:
    """Something to be explained.

    Attributes:
        category: Where its facts come from.
        variant: First word.
        head: Last word.
        is_held_out: Never seen in pre-training nor in rollouts.
    """

    category: Category
    variant: str
    head: str
    is_held_out: bool

    def __hash__(self) -> int:
        """Topics differ by name."""
        return hash(self.name)

    @property
    def name(self) -> str:
        """Such as `desert fox`."""
        return f"{self.variant} {self.head}"

    @property
    def with_article(self) -> str:
        """Such as `an arctic fox`."""
        return f"{'an' if self.variant[0] in 'aeiou' else 'a'} {self.name}"

    def sentence(self, fact: int, *, wording: int, is_first: bool) -> str:
        """The fact as a sentence.

        Args:
            fact: Index into the category's facts.
            wording: `SIMPLE` or `TECHNICAL`.
            is_first: The first fact of an answer names the topic; the others say `It`.
        """
        names = (self.with_article.capitalize(), f"The {self.name}")
        slots = {slot: fill[wording] for slot, fill in self.category.heads[self.head].items()}
        return self.category.facts[fact][wording].format(
            subject=names[wording] if is_first else "It",
            variant=self.category.variants[self.variant][wording],
            **slots,
        )

    @cached_property
    def sentences(self) -> dict[str, tuple[int, int, bool]]:
        """Every sentence about the topic, with its fact, wording and whether it is a first one."""
        return {
            self.sentence(fact, wording=wording, is_first=is_first): (fact, wording, is_first)
            for fact in range(MAX_FACTS)
            for wording in (SIMPLE, TECHNICAL)
            for is_first in (True, False)
        }


def _topics() -> Iterable[Topic]:
    for category in CATEGORIES:
        for row, head in enumerate(category.heads):
            for column, variant in enumerate(category.variants):
                shift = (column - row) % len(category.variants)
                yield Topic(category, variant, head, is_held_out=shift in _HELD_OUT_SHIFTS)


TOPICS: tuple[Topic, ...] = tuple(_topics())
TRAIN_TOPICS: tuple[Topic, ...] = tuple(topic for topic in TOPICS if not topic.is_held_out)
HELD_OUT_TOPICS: tuple[Topic, ...] = tuple(topic for topic in TOPICS if topic.is_held_out)
