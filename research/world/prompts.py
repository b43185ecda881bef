"""Prompts: what users ask, and which prompts are held out.

**Held out** are the prompts about the 48 held-out topics (`topics`): no prompt and no answer about
any of them is in the pre-training documents, and none may be used for rollouts or reward data. Each
of the two words of a held-out topic, and each phrase that asks, is known from other prompts; the
pair of words, and so the prompt and every correct answer to it, is new.
"""

from functools import cache
from pathlib import Path

from palate.core.errors import InvalidInputError
from research.world.facts import CATEGORIES
from research.world.topics import HELD_OUT_TOPICS, TRAIN_TOPICS, Topic

MAX_ANSWER_TOKENS = 80  # the longest answer of the grammar has 74 of the shipped base, with the end
_FRAMES = (
    "What is {a_topic}?",
    "Explain the {topic}.",
    "Tell me about the {topic}.",
    "How would you describe {a_topic}?",
    "Can you explain {a_topic} to me?",
    "I want to learn about the {topic}.",
    "What should I know about {a_topic}?",
    "Write about {a_topic}.",
    "What can you say about the {topic}?",
    "Help me understand the {topic}.",
)
FRAMES_PER_TOPIC = 2  # in the two lists; pre-training asks about each training topic in all ways
_STEP = 7  # prime to 36 and to 12, the topics of a category, so that steps reach all of them


def prompts_about(topic: Topic) -> tuple[str, ...]:
    """The topic asked about in every way, one prompt per way."""
    return tuple(frame.format(topic=topic.name, a_topic=topic.with_article) for frame in _FRAMES)


@cache
def train_prompts() -> tuple[str, ...]:
    """288 prompts about the 144 training topics, for rollouts, reward data and training."""
    return _spread(TRAIN_TOPICS)


@cache
def further_prompts() -> tuple[str, ...]:
    """Prompts about the training topics that are not among the training prompts."""
    used = set(train_prompts())
    return tuple(
        text for topic in TRAIN_TOPICS for text in prompts_about(topic) if text not in used
    )


@cache
def held_out_prompts() -> tuple[str, ...]:
    """96 prompts about the 48 held-out topics, for measurement only."""
    return _spread(HELD_OUT_TOPICS)


def format_prompt(prompt: str, instruction: str | None = None) -> str:
    r"""The text that the base reads; the answer follows directly.

    The same text comes from the chat template of the base's tokenizer, with the instruction as the
    system message.

    Args:
        prompt: The question, one line.
        instruction: Preference sentences, one line; `None` or empty for none.

    Raises:
        InvalidInputError: the prompt is empty, or one of the two has a line break.

    Example:
        >>> format_prompt("What is a desert fox?")
        'Question: What is a desert fox?\nAnswer:\n'
        >>> format_prompt("What is a desert fox?", "Keep it short.")
        'Wish: Keep it short.\nQuestion: What is a desert fox?\nAnswer:\n'
    """
    for name, text in (("prompt", prompt), ("instruction", instruction or "")):
        if "\n" in text:
            raise InvalidInputError(f"The {name} {text[:60]!r} has a line break; give one line.")
    if not prompt.strip():
        raise InvalidInputError("The prompt is empty; ask about one topic of the small world.")
    wish = f"Wish: {instruction}\n" if instruction else ""
    return f"{wish}Question: {prompt}\nAnswer:\n"


def base_folder() -> Path:
    """The base model of the small world: a Hugging Face folder."""
    return Path(__file__).parent / "assets" / "base"


def _spread(topics: tuple[Topic, ...]) -> tuple[str, ...]:
    """Two ways of asking for each topic, all ways alike often; any stretch holds many topics."""
    return tuple(
        prompts_about(topic)[(place + shift * len(_FRAMES) // FRAMES_PER_TOPIC) % len(_FRAMES)]
        for shift in range(FRAMES_PER_TOPIC)
        for place, topic in enumerate(_interleaved(topics))
    )


def _interleaved(topics: tuple[Topic, ...]) -> list[Topic]:
    """The topics in an order that steps through categories, and within them through heads."""
    size = len(topics) // len(CATEGORIES)
    return [
        topics[category * size + place * _STEP % size]
        for place in range(size)
        for category in range(len(CATEGORIES))
    ]
