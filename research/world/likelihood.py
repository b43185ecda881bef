"""How probable an answer is under the world's habits, exactly.

It gives the base's distance from the grammar it learned: over answers drawn from the grammar, the
mean of `log P_grammar - log P_base` estimates the Kullback-Leibler divergence in nats per answer.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch.nn.functional import cross_entropy

from research.world.documents import Document
from research.world.grammar import (
    NEUTRAL_SKIPPED,
    TECHNICAL_CHANCES,
    TONE_KEPT,
    Answer,
    sample_answer,
    sample_style,
)
from research.world.pretrain import IGNORED, collate
from research.world.prompts import format_prompt, prompts_about
from research.world.tones import CLOSINGS, OPENINGS, TONES, Tone
from research.world.topics import MAX_FACTS, TECHNICAL, Topic

_BATCH = 64


def answer_log_prob(answer: Answer) -> float:
    """Natural logarithm of the probability of the answer given its topic, without wishes.

    The sum over the hidden style: how many and which facts, the chance of the technical wording,
    the tone and whether opening and closing have it, and which sentence of the tone is said. Minus
    infinity for a friendly opening with an unfriendly closing or the reverse, which the grammar
    allows and the habits never draw.
    """
    technical = sum(wording == TECHNICAL for _, wording in answer.facts)
    simple = answer.n_facts - technical
    which = 1 / (MAX_FACTS * math.comb(MAX_FACTS, answer.n_facts))
    wordings = sum(
        share * chance**technical * (1 - chance) ** simple for chance, share in TECHNICAL_CHANCES
    )
    ends = (answer.opening[0], answer.closing[0])
    tones = sum(math.prod(_tone_given(end, tone) for end in ends) for tone in TONES) / len(TONES)
    sentences = _sentence_given(OPENINGS, *answer.opening) * _sentence_given(
        CLOSINGS, *answer.closing
    )
    chance = which * wordings * tones * sentences
    return math.log(chance) if chance > 0 else -math.inf


def excess_nats(
    model: Any,
    tokenizer: Any,
    *,
    topics: Sequence[Topic],
    n_answers: int,
    generator: np.random.Generator,
) -> Float[ndarray, " answers"]:
    """`[n_answers]`: `log P_grammar - log P_base` of answers drawn from the grammar, nats.

    Args:
        model: A causal language model of transformers.
        tokenizer: Its tokenizer.
        topics: What the answers are about.
        n_answers: How many.
        generator: Source of chance.
    """
    documents: list[Document] = []
    exact: list[float] = []
    for place in generator.integers(len(topics), size=n_answers):
        ways = prompts_about(topics[place])
        answer = sample_answer(topics[place], sample_style(generator), generator)
        prompt = format_prompt(ways[int(generator.integers(len(ways)))])
        documents.append(Document(prompt, answer.text))
        exact.append(answer_log_prob(answer))
    batches = [documents[start : start + _BATCH] for start in range(0, n_answers, _BATCH)]
    learned = [_log_probs(model, tokenizer, batch) for batch in batches]
    return np.array(exact) - np.concatenate(learned)


@torch.inference_mode()
def _log_probs(model: Any, tokenizer: Any, documents: list[Document]) -> Float[ndarray, " batch"]:
    batch = collate(documents, tokenizer=tokenizer)
    logits = model(input_ids=batch["input_ids"]).logits[:, :-1]
    losses = cross_entropy(
        logits.transpose(1, 2), batch["labels"][:, 1:], ignore_index=IGNORED, reduction="none"
    )
    return -losses.sum(dim=1).double().numpy()


def _tone_given(end: Tone, tone: Tone) -> float:
    return TONE_KEPT * (end == tone) + (1 - TONE_KEPT) * (end == "neutral")


def _sentence_given(sentences: dict[Tone, tuple[str, ...]], tone: Tone, sentence: str) -> float:
    drawn = (sentence in sentences[tone]) / len(sentences[tone])
    if tone != "neutral":
        return drawn
    return NEUTRAL_SKIPPED * (not sentence) + (1 - NEUTRAL_SKIPPED) * drawn
