"""What a base of the small world is like: well-formed answers, gold rewards, lengths, obedience.

Answers are sampled at temperature 1 to held-out prompts by transformers' own `generate`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from palate.core.seeds import derive_seed, generator_for
from palate.metrics.intervals import wilson_interval
from research.world.documents import sample_wishes
from research.world.gold import gold_rewards
from research.world.grammar import parse
from research.world.likelihood import excess_nats
from research.world.objectives import OBJECTIVE_NAMES, OBJECTIVES, Objective
from research.world.prompts import MAX_ANSWER_TOKENS, format_prompt, held_out_prompts
from research.world.topics import HELD_OUT_TOPICS, TRAIN_TOPICS

_BATCH = 64
_LEVELS = (0, 5, 50, 95, 100)


@dataclass(frozen=True)
class Share:
    """A share of answers with its 95 % Wilson interval.

    Attributes:
        share: In [0, 1].
        low: Lower end.
        high: Upper end.
        n_answers: Out of so many.
    """

    share: float
    low: float
    high: float
    n_answers: int


@dataclass(frozen=True)
class Measurement:
    """What was measured of a base.

    Attributes:
        well_formed: Without preference sentences.
        well_formed_with_wishes: With one to three of them.
        gold_mean: Per objective, without preference sentences.
        gold_sd: The same answers' standard deviation.
        gold_mean_if_asked: Per objective, with its own preference sentence alone.
        words: 0, 5, 50, 95 and 100 % quantiles of words per answer.
        tokens: The same of tokens.
        excess_nats: Kullback-Leibler divergence from the grammar to the base, nats per answer,
            about `train` and `held_out` topics, without preference sentences.
        excess_errors: Standard errors of these two.
        faults: Up to ten answers' faults, in words.
    """

    well_formed: Share
    well_formed_with_wishes: Share
    gold_mean: dict[str, float]
    gold_sd: dict[str, float]
    gold_mean_if_asked: dict[str, float]
    words: tuple[float, ...]
    tokens: tuple[float, ...]
    excess_nats: dict[str, float]
    excess_errors: dict[str, float]
    faults: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The measurement as plain data."""
        return asdict(self)


def measure(
    model: Any,
    tokenizer: Any,
    *,
    n_answers: int,
    seed: int,
    on_batch: Callable[[int, int], None] = lambda _done, _of_all: None,
) -> Measurement:
    """Measure a base; draws `8 n_answers` answers.

    Args:
        model: A causal language model of transformers.
        tokenizer: Its tokenizer.
        n_answers: Answers in each of the eight samples (plain, with wishes, one per objective), and
            answers of the grammar in each of two samples for the divergence.
        seed: Of prompts, wishes and answers.
        on_batch: Called after every batch with how many answers are drawn, and of how many.
    """
    generator = generator_for(seed, "measure")
    places = generator.integers(len(held_out_prompts()), size=n_answers)
    prompts = [held_out_prompts()[place] for place in places]
    wishes: list[Sequence[Objective]] = [()] * n_answers
    wishes += [sample_wishes(generator) for _ in prompts]
    wishes += [(objective,) for objective in OBJECTIVES for _ in prompts]
    texts = [
        format_prompt(prompt, " ".join(wish.instruction for wish in several))
        for prompt, several in zip(prompts * (2 + len(OBJECTIVES)), wishes, strict=True)
    ]
    answer_seed = derive_seed(seed, "answers")
    answers = sample_answers(model, tokenizer, texts, seed=answer_seed, on_batch=on_batch)
    plain = answers[:n_answers]
    readings = [
        parse(prompt, text)
        for prompt, text in zip(prompts * 2, answers[: 2 * n_answers], strict=True)
    ]
    excess = {
        name: excess_nats(model, tokenizer, topics=topics, n_answers=n_answers, generator=generator)
        for name, topics in (("train", TRAIN_TOPICS), ("held_out", HELD_OUT_TOPICS))
    }
    gold = gold_rewards(answers).reshape(2 + len(OBJECTIVES), n_answers, len(OBJECTIVES))
    return Measurement(
        well_formed=_share([reading.is_well_formed for reading in readings[:n_answers]]),
        well_formed_with_wishes=_share(
            [reading.is_well_formed for reading in readings[n_answers:]]
        ),
        gold_mean=_by_name(gold[0].mean(axis=0)),
        gold_sd=_by_name(gold[0].std(axis=0)),
        gold_mean_if_asked=_by_name(gold[2:].mean(axis=1).diagonal()),
        words=_quantiles([len(text.split()) for text in plain]),
        tokens=_quantiles([len(ids) for ids in tokenizer(plain)["input_ids"]]),
        excess_nats={name: float(values.mean()) for name, values in excess.items()},
        excess_errors={
            name: float(values.std() / np.sqrt(n_answers)) for name, values in excess.items()
        },
        faults=tuple(reading.fault for reading in readings if reading.fault)[:10],
    )


def sample_answers(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    seed: int,
    on_batch: Callable[[int, int], None] = lambda _done, _of_all: None,
) -> list[str]:
    """One answer per formatted prompt, at temperature 1, cut after `MAX_ANSWER_TOKENS`.

    A cut answer is given as far as it came. torch's own generator is left as it was.
    """
    answers: list[str] = []
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            read = tokenizer(batch, return_tensors="pt", padding=True, padding_side="left")
            ids = model.generate(
                input_ids=read["input_ids"],
                attention_mask=read["attention_mask"],
                do_sample=True,
                top_k=0,
                max_new_tokens=MAX_ANSWER_TOKENS,
                pad_token_id=tokenizer.pad_token_id,
            )
            drawn = ids[:, read["input_ids"].shape[1] :]
            answers += tokenizer.batch_decode(drawn, skip_special_tokens=True)
            on_batch(len(answers), len(texts))
    return answers


def _share(is_so: Sequence[bool]) -> Share:
    low, high = wilson_interval(sum(is_so), len(is_so))
    return Share(sum(is_so) / len(is_so), low, high, len(is_so))


def _by_name(values: Float[ndarray, " objectives"]) -> dict[str, float]:
    return {name: float(value) for name, value in zip(OBJECTIVE_NAMES, values, strict=True)}


def _quantiles(lengths: Sequence[int]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.percentile(lengths, _LEVELS))
