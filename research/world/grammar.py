"""The grammar of answers: draw one, write one, and read one back.

    answer  = [opening] fact{1..5} [closing]
    opening = friendly | neutral | unfriendly sentence
    closing = friendly | neutral | unfriendly sentence
    fact    = one of the topic's five, in its simple or technical wording, in the topic's order,
              none twice; the first names the topic

Openings and closings of different tones may meet, and wordings may mix from sentence to sentence.
What is drawn, and how often, are the world's habits (`sample_style`), which use less than the
grammar allows: an answer that starts friendly does not end unfriendly.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from palate.core.errors import InvalidInputError
from research.world.tones import CLOSINGS, OPENINGS, TONES, Tone
from research.world.topics import MAX_FACTS, SIMPLE, TECHNICAL, TOPICS, Topic

_BREAK = re.compile(r"(?<=[.!?]) ")
# The world's habits, where nothing is asked for.
TECHNICAL_CHANCES = ((0.05, 0.35), (0.5, 0.3), (0.95, 0.35))  # (chance, how often it is drawn)
TONE_KEPT = 0.7  # chance that the opening, and again the closing, has the answer's tone
NEUTRAL_SKIPPED = 0.5  # chance of an empty neutral sentence, besides being drawn as one of them


@dataclass(frozen=True)
class Answer:
    """What an answer says.

    Attributes:
        topic: What it is about.
        facts: (fact, wording) pairs, facts ascending.
        opening: Tone and sentence; the sentence may be empty where the tone is neutral.
        closing: Tone and sentence, as above.
    """

    topic: Topic
    facts: tuple[tuple[int, int], ...]
    opening: tuple[Tone, str]
    closing: tuple[Tone, str]

    def __post_init__(self) -> None:
        """Refuse what the grammar cannot say."""
        order = [fact for fact, _ in self.facts]
        if not 1 <= len(order) <= MAX_FACTS or order != sorted(set(order)):
            raise InvalidInputError(
                f"The facts {order} are not 1 to {MAX_FACTS} different ones in ascending order."
            )

    @property
    def n_facts(self) -> int:
        """How many facts it tells."""
        return len(self.facts)

    @property
    def technical_share(self) -> float:
        """Share of facts in the technical wording."""
        return sum(wording == TECHNICAL for _, wording in self.facts) / len(self.facts)

    @property
    def text(self) -> str:
        """The answer in words."""
        facts = [
            self.topic.sentence(fact, wording=wording, is_first=place == 0)
            for place, (fact, wording) in enumerate(self.facts)
        ]
        return " ".join(part for part in [self.opening[1], *facts, self.closing[1]] if part)


@dataclass(frozen=True)
class Reading:
    """The outcome of reading a text.

    Attributes:
        answer: What it says, or `None` when the grammar cannot have produced it.
        fault: Why not, in a few words; empty when well-formed.
    """

    answer: Answer | None
    fault: str = ""

    @property
    def is_well_formed(self) -> bool:
        """Whether the grammar could have produced the text."""
        return self.answer is not None


@dataclass(frozen=True)
class Style:
    """How an answer is to be written.

    Attributes:
        technical: Chance of the technical wording, for every fact anew.
        n_facts: 1 to 5.
        opening: Tone.
        closing: Tone.
        is_terse: Neutral openings and closings are left out.
    """

    technical: float
    n_facts: int
    opening: Tone
    closing: Tone
    is_terse: bool = False


def sample_style(generator: np.random.Generator, *, obeyed: Iterable[str] = ()) -> Style:
    """A style drawn from the world's habits, bent to the objectives that are obeyed.

    Habits: one of three chances of the technical wording; 1 to 5 facts, all alike; one of three
    tones, all alike, which opening and closing keep or leave for the neutral tone, each by itself.

    Args:
        generator: Source of chance.
        obeyed: Names of objectives; at most one of each axis has an effect (the first).
    """
    wanted = set(obeyed)
    chances, shares = zip(*TECHNICAL_CHANCES, strict=True)
    technical = float(generator.choice(chances, p=shares))
    n_facts = int(generator.integers(1, MAX_FACTS + 1))
    tone = TONES[int(generator.integers(len(TONES)))]
    keeps = generator.random(2) < TONE_KEPT
    if wanted & {"elementary", "expert"}:
        technical = 0.02 if "elementary" in wanted else 0.98
    if wanted & {"concise", "informative"}:
        n_facts = int(generator.integers(1, 3)) + (0 if "concise" in wanted else MAX_FACTS - 2)
    if wanted & {"friendly", "unfriendly"}:
        tone = "friendly" if "friendly" in wanted else "unfriendly"
        keeps[:] = True
    opening: Tone = tone if keeps[0] else "neutral"
    closing: Tone = tone if keeps[1] else "neutral"
    return Style(technical, n_facts, opening, closing, is_terse="concise" in wanted)


def sample_answer(topic: Topic, style: Style, generator: np.random.Generator) -> Answer:
    """An answer about the topic in the given style."""
    chosen = sorted(generator.choice(MAX_FACTS, size=style.n_facts, replace=False).tolist())
    is_technical = generator.random(style.n_facts) < style.technical
    facts = tuple(
        (fact, TECHNICAL if hard else SIMPLE)
        for fact, hard in zip(chosen, is_technical, strict=True)
    )
    return Answer(
        topic=topic,
        facts=facts,
        opening=(style.opening, _pick(OPENINGS, style.opening, style, generator)),
        closing=(style.closing, _pick(CLOSINGS, style.closing, style, generator)),
    )


def read(text: str) -> Reading:
    """What the text says, whatever the prompt was.

    The topic is the one that the first fact names. A text is well-formed only if `Answer.text`
    gives it back letter by letter.
    """
    sentences = _BREAK.split(text)
    opening, closing = _tone_of(OPENINGS, sentences[0]), _tone_of(CLOSINGS, sentences[-1])
    told = sentences[opening is not None : len(sentences) - (closing is not None)]
    if not told:
        return Reading(None, "no fact")
    topic = _first_sentences().get(told[0])
    if topic is None:
        return Reading(None, f"no topic is named by {told[0]!r}")
    if len(told) > MAX_FACTS:
        return Reading(None, f"{len(told)} facts")
    facts: list[tuple[int, int]] = []
    for place, sentence in enumerate(told):
        found = topic.sentences.get(sentence)
        if found is None or found[2] != (place == 0):
            return Reading(None, f"not a fact of the {topic.name}: {sentence!r}")
        if facts and found[0] <= facts[-1][0]:
            return Reading(None, f"a fact repeated or out of order: {sentence!r}")
        facts.append(found[:2])
    return Reading(
        Answer(topic, tuple(facts), opening or ("neutral", ""), closing or ("neutral", ""))
    )


def parse(prompt: str, text: str) -> Reading:
    """What the text says as an answer to the prompt: `read`, and the topic must be the asked one.

    Raises:
        InvalidInputError: the prompt asks about no topic of this world.
    """
    asked = topic_of(prompt)
    reading = read(text)
    if reading.answer is not None and reading.answer.topic != asked:
        return Reading(None, f"about the {reading.answer.topic.name}, not the {asked.name}")
    return reading


def topic_of(prompt: str) -> Topic:
    """The topic that the prompt asks about.

    Raises:
        InvalidInputError: it names no topic of this world, or more than one.
    """
    found = [topic for name, topic in _topics_by_name().items() if name in prompt.lower()]
    if len(found) != 1:
        raise InvalidInputError(
            f"The prompt {prompt[:60]!r} names {len(found)} topics of the small world; "
            "ask about exactly one, such as 'What is a desert fox?'."
        )
    return found[0]


def _pick(
    sentences: dict[Tone, tuple[str, ...]], tone: Tone, style: Style, generator: np.random.Generator
) -> str:
    """A sentence of the tone; a neutral one may be left out, and always is when terse."""
    options = sentences[tone]
    if tone == "neutral" and (style.is_terse or generator.random() < NEUTRAL_SKIPPED):
        return ""
    return options[int(generator.integers(len(options)))]


def _tone_of(sentences: dict[Tone, tuple[str, ...]], sentence: str) -> tuple[Tone, str] | None:
    for tone in TONES:
        if sentence and sentence in sentences[tone]:
            return tone, sentence
    return None


@cache
def _first_sentences() -> dict[str, Topic]:
    return {
        sentence: topic
        for topic in TOPICS
        for sentence, (_, _, is_first) in topic.sentences.items()
        if is_first
    }


@cache
def _topics_by_name() -> dict[str, Topic]:
    return {topic.name: topic for topic in TOPICS}
