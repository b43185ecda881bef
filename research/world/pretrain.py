"""The small base, from nothing: a byte-level BPE tokenizer and a Llama of a million parameters.

The loss is the mean negative log-likelihood of the answers' tokens and the end token; prompts are
read and not learned. Documents are drawn fresh, so none is seen twice but by chance.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from pydantic import Field
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers import get_cosine_schedule_with_warmup as cosine_schedule

from palate.core.seeds import derive_seed, generator_for
from palate.core.settings import Settings
from research.world.documents import Document, sample_document, tokenizer_texts

END, PADDING = "<|end|>", "<|pad|>"
PADDING_ID, END_ID = 0, 1  # special tokens come first in the vocabulary
IGNORED = -100  # label of tokens that the loss leaves out, as transformers has it
_SLICE = 32  # documents that pass through the model together
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ 'Wish: ' + message['content'] + '\\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'Question: ' + message['content'] + '\\n' }}"
    "{% else %}{{ 'Answer:\\n' + message['content'] + eos_token + '\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Answer:\\n' }}{% endif %}"
)


class PretrainSettings(Settings):
    """How the base is made; the defaults made the one that is shipped.

    Attributes:
        seed: Of everything.
        steps: Optimiser steps.
        batch_documents: Documents a step.
        learning_rate: At the end of the warm-up; a cosine takes it to zero.
        warmup_steps: Linear.
        vocabulary: Tokens, at most.
        tokenizer_documents: Documents that the tokenizer learns from.
        hidden: Width.
        layers: Blocks.
        heads: Attention heads.
        feed_forward: Width of the inner layer.
        positions: Longest text in tokens.
    """

    seed: int = 0
    steps: int = Field(default=2400, ge=1)
    batch_documents: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=5e-3, gt=0)
    warmup_steps: int = Field(default=100, ge=0)
    vocabulary: int = Field(default=2048, ge=300, le=2048)
    tokenizer_documents: int = Field(default=20_000, ge=1)
    hidden: int = Field(default=128, ge=8)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    feed_forward: int = Field(default=352, ge=8)
    positions: int = Field(default=256, ge=64)


@dataclass(frozen=True)
class Pretrained:
    """A trained base, in memory.

    Attributes:
        model: In evaluation mode.
        tokenizer: With end and padding tokens and the chat template.
        losses: Nats per answer token, one per step.
    """

    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerFast
    losses: tuple[float, ...]

    def save(self, folder: Path) -> None:
        """Write a Hugging Face folder."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def pretrain(
    settings: PretrainSettings, *, on_step: Callable[[int, float], None] = lambda _s, _l: None
) -> Pretrained:
    """Train tokenizer and base.

    Args:
        settings: How.
        on_step: Called after every step with the number of steps done and the loss.
    """
    tokenizer = train_tokenizer(settings)
    model = _new_model(settings, tokenizer)
    optimizer = AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    schedule = cosine_schedule(optimizer, settings.warmup_steps, settings.steps)
    generator = generator_for(settings.seed, "documents")
    losses: list[float] = []
    for step in range(1, settings.steps + 1):
        batch = [sample_document(generator) for _ in range(settings.batch_documents)]
        losses.append(_backward(model, batch, tokenizer))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        on_step(step, losses[-1])
    return Pretrained(model.eval(), tokenizer, tuple(losses))


def train_tokenizer(settings: PretrainSettings) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that reads any text and adds no token of its own."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=[PADDING, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    generator = generator_for(settings.seed, "tokenizer")
    texts = tokenizer_texts(n_documents=settings.tokenizer_documents, generator=generator)
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PADDING,
        model_max_length=settings.positions,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def collate(documents: list[Document], *, tokenizer: PreTrainedTokenizerFast) -> dict[str, Tensor]:
    """A batch: prompt, answer and end token, padded on the right; only answer and end have labels.

    Returns:
        `input_ids` and `labels`, each `[batch, seq]`. There is no mask: no token sees the padding
        after it.
    """
    prompts = tokenizer([document.prompt for document in documents])["input_ids"]
    answers = tokenizer([document.answer for document in documents])["input_ids"]
    rows = [[*p, *a, END_ID] for p, a in zip(prompts, answers, strict=True)]
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), PADDING_ID)
    labels = torch.full((len(rows), longest), IGNORED)
    for place, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        ids[place, : len(row)] = torch.tensor(row)
        labels[place, len(prompt) : len(row)] = torch.tensor(row[len(prompt) :])
    return {"input_ids": ids, "labels": labels}


def _new_model(settings: PretrainSettings, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=settings.feed_forward,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END_ID,
        pad_token_id=PADDING_ID,
    )
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(settings.seed, "parameters"))
        return LlamaForCausalLM(config).train()


def answer_loss(
    model: LlamaForCausalLM,
    *,
    input_ids: Int[Tensor, "batch seq"],
    labels: Int[Tensor, "batch seq"],
) -> Float[Tensor, ""]:
    """Sum over labelled tokens of the negative log-likelihood, in nats.

    The vocabulary is only scored where a label asks for it, which saves a fifth of the time.
    """
    hidden = model.model(input_ids).last_hidden_state[:, :-1]
    following = labels[:, 1:]
    is_asked = following != IGNORED
    return cross_entropy(model.lm_head(hidden[is_asked]), following[is_asked], reduction="sum")


def _backward(
    model: LlamaForCausalLM, batch: list[Document], tokenizer: PreTrainedTokenizerFast
) -> float:
    """Add the gradient of the batch's mean loss per answer token; returns that loss, in nats."""
    slices = [collate(documents, tokenizer=tokenizer) for documents in _slices(batch)]
    n_tokens = sum(int((inputs["labels"] != IGNORED).sum()) for inputs in slices)
    total = 0.0
    for inputs in slices:
        loss = answer_loss(model, **inputs) / n_tokens
        loss.backward()
        total += loss.item()
    return total


def _slices(documents: list[Document]) -> list[list[Document]]:
    """The batch in slices of like lengths, which together need less padding."""
    ordered = sorted(documents, key=lambda document: len(document.answer))
    return [ordered[start : start + _SLICE] for start in range(0, len(ordered), _SLICE)]
