"""A transformer with a reward head: a Hugging Face sequence classifier with one output.

A prompt and an answer are put together by the chat template or, without one, with a blank line
between them; a text longer than the model's context length loses its beginning. Scores of one text
alone and in a batch agree to rounding, not to the bit: padding changes the order of sums.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.utils import logging as transformers_logging

from palate.core.errors import FormatError
from palate.core.files import hash_bytes
from palate.models.embedded import NO_CODE, SAFE_WEIGHTS, reading_model
from palate.models.load import tokenizer_fingerprint
from palate.rewards.card import Trunk
from palate.rewards.texts import turns_of

_PLAIN_SEPARATOR = "\n\n"
_SCORE_BATCH = 32
_NO_LIMIT = 2**20  # tokenizers that know none say 1e30, which they cannot read back


@dataclass(frozen=True, eq=False)
class TransformerModel:
    """A trained transformer reward: prompt and answer to log-odds."""

    trunk: ClassVar[Trunk] = "transformer"
    model: PreTrainedModel  # a sequence classifier with one output, in evaluation mode
    tokenizer: Tokenizer  # its padding token is set, its `model_max_length` the most tokens
    adds_end: bool = True  # whether texts get an end token that their layout lacks, as in training

    @property
    def fingerprint(self) -> str:
        """Hash of parameters, tokenizer and the most tokens of a text."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        return hash_of(self.model, self.tokenizer, str(self.tokenizer.model_max_length))

    def raw(self, prompts: Sequence[str], answers: Sequence[str]) -> Float[np.ndarray, " texts"]:
        """Scores in log-odds, `[texts]`; only differences mean something, higher is better."""
        texts = [
            encode(self.tokenizer, prompt, answer, adds_end=self.adds_end)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        scores = np.zeros(len(texts))
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), _SCORE_BATCH):
            rows = order[start : start + _SCORE_BATCH]
            scores[rows] = self._score([texts[row] for row in rows])
        return scores

    def save(self, folder: Path) -> None:
        """Write the classifier and its tokenizer into the folder, as Hugging Face lays it out."""
        with quiet():
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _score(self, texts: Sequence[list[int]]) -> Float[np.ndarray, " texts"]:
        width = max(map(len, texts))
        ids = torch.full((len(texts), width), _pad_id(self.tokenizer))
        mask = torch.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = torch.tensor(text)
            mask[row, : len(text)] = 1
        device = self.model.device
        with torch.inference_mode():
            out = self.model(input_ids=ids.to(device), attention_mask=mask.to(device))
        return out.logits[:, 0].double().cpu().numpy()


def load_transformer(name: str | Path, *, device: str = "cpu") -> TransformerModel:
    """The sequence classifier of a folder, such as `TransformerModel.save` writes, or of the hub.

    Raises:
        InvalidInputError: the model is not there.
        FormatError: it is no sequence classifier with one output.
    """
    model, tokenizer = load_trunk(str(name))
    config = AutoConfig.from_pretrained(name, **NO_CODE)
    kinds = [str(kind) for kind in config.architectures or ["nothing"]]
    if not kinds[0].endswith("ForSequenceClassification") or config.num_labels != 1:
        raise FormatError(
            f"The model {str(name)!r} is {kinds[0]} with {config.num_labels} outputs, but a reward "
            "is a sequence classifier with one."
        )
    model.eval().requires_grad_(requires_grad=False)
    return TransformerModel(model.to(torch.device(device)), tokenizer)


@dataclass(frozen=True, eq=False)
class FinishedModel(TransformerModel):
    """A finished reward model, by folder or hub id, as a reward function: its output is the score.

    Texts are put together as above, and get no end token; a model that was trained on text pairs or
    on another layout ranks worse than its card says. A library stores the name and a hash of what
    it stands for, not the parameters.
    """

    adds_end: bool = False
    name: str = ""  # folder or hub id

    @classmethod
    def load(cls, name: str) -> "FinishedModel":
        """The reward model of that name; raises as `load_transformer`."""
        loaded = load_transformer(name)
        return cls(loaded.model, loaded.tokenizer, name=name)

    @property
    def source(self) -> dict[str, object]:
        """As a run file names it."""
        return {"model": self.name}

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], **columns: object
    ) -> list[float]:
        """The scores, one for each completion; higher is better."""
        del columns
        return self.raw(prompts, completions).tolist()


def load_trunk(name: str, *, revision: str | None = None) -> tuple[Any, Tokenizer]:
    """A model with a reward head, new where the checkpoint has none, and its tokenizer.

    Raises:
        InvalidInputError: the trunk is not there.
        FormatError: what is there is no model with a tokenizer.
    """
    with reading_model(name, what="trunk"), quiet():
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, **NO_CODE)
        model = AutoModelForSequenceClassification.from_pretrained(
            name,
            revision=revision,
            num_labels=1,
            dtype=torch.float32,
            **SAFE_WEIGHTS,
            ignore_mismatched_sizes=True,  # a head of another number of outputs is made anew
        )
    tokenizer.truncation_side = "left"
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    model.config.pad_token_id = _pad_id(tokenizer)
    positions = getattr(model.config, "max_position_embeddings", None) or _NO_LIMIT
    tokenizer.model_max_length = min(int(tokenizer.model_max_length), int(positions))
    return model, tokenizer


def hash_of(model: PreTrainedModel, tokenizer: Tokenizer, *facts: str) -> str:
    """Hash of parameters, tokenizer and further facts that a model's output depends on."""
    content = [part.encode() for part in (tokenizer_fingerprint(tokenizer), *facts)]
    for name, tensor in sorted(model.state_dict().items()):
        content += [name.encode(), tensor.detach().cpu().contiguous().float().numpy().tobytes()]
    return hash_bytes(*content)


def encode(tokenizer: Tokenizer, prompt: str, answer: str, *, adds_end: bool = True) -> list[int]:
    """Token ids of prompt and answer, by default with an end token; the beginning may be cut."""
    text: Any = prompt + _PLAIN_SEPARATOR + answer
    is_plain = getattr(tokenizer, "chat_template", None) is None
    if not is_plain:
        messages = [*turns_of(prompt), {"role": "assistant", "content": answer}]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    most = tokenizer.model_max_length - 1
    ids: Any = tokenizer(text, add_special_tokens=is_plain, truncation=True, max_length=most)
    tokens = [int(token) for token in ids["input_ids"]]
    end: Any = tokenizer.eos_token_id
    last: Any = tokenizer.sep_token_id if end is None else end
    if not adds_end or last is None or tokens[-1:] == [last]:
        return tokens
    return [*tokens, int(last)]


def _pad_id(tokenizer: Tokenizer) -> int:
    return int(str(tokenizer.pad_token_id))


@contextmanager
def quiet() -> Generator[None]:
    """Turn off transformers' report that the head is new, and its progress bar."""
    verbosity = transformers_logging.get_verbosity()
    has_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if has_bar:
            transformers_logging.enable_progress_bar()
