"""Pre-training documents: questions about training topics with answers in all styles.

Three documents in ten carry a wish of one to three preference sentences, of different axes and in
any order, and the answer obeys each with probability 0.7. So the base knows what the sentences
mean, yet asking is not as good as training.
"""

from dataclasses import dataclass

import numpy as np

from research.world.grammar import sample_answer, sample_style
from research.world.objectives import AXES, OBJECTIVES, Objective
from research.world.prompts import format_prompt, prompts_about
from research.world.topics import TRAIN_TOPICS

WISH_SHARE = 0.3
OBEDIENCE = 0.7


@dataclass(frozen=True)
class Document:
    """One question with its answer.

    Attributes:
        prompt: The text before the answer, as `format_prompt` writes it.
        answer: The text that the base learns to write.
    """

    prompt: str
    answer: str


def sample_document(generator: np.random.Generator) -> Document:
    """A document about a training topic."""
    topic = TRAIN_TOPICS[int(generator.integers(len(TRAIN_TOPICS)))]
    ways = prompts_about(topic)
    question = ways[int(generator.integers(len(ways)))]
    wishes = sample_wishes(generator) if generator.random() < WISH_SHARE else ()
    obeyed = [wish.name for wish in wishes if generator.random() < OBEDIENCE]
    answer = sample_answer(topic, sample_style(generator, obeyed=obeyed), generator)
    instruction = " ".join(wish.instruction for wish in wishes)
    return Document(format_prompt(question, instruction), answer.text)


def sample_wishes(generator: np.random.Generator) -> tuple[Objective, ...]:
    """One to three objectives of different axes, in any order."""
    axes = list(AXES.values())
    chosen = generator.permutation(len(axes))[: int(generator.integers(1, len(axes) + 1))]
    return tuple(axes[int(axis)][int(generator.integers(2))] for axis in chosen)


def tokenizer_texts(*, n_documents: int, generator: np.random.Generator) -> list[str]:
    """Texts to learn the tokenizer from: documents, and every preference sentence."""
    documents = [sample_document(generator) for _ in range(n_documents)]
    return [document.prompt + document.answer for document in documents] + [
        objective.instruction for objective in OBJECTIVES
    ]
