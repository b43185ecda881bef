"""Sentence embeddings: the mean of an encoder's last hidden states over the tokens, of length one.

Any encoder that transformers loads will do; those trained for sentence embeddings tell meanings
apart. A text beyond `max_length` tokens loses its end. Embeddings of one text alone and in a batch
agree to rounding, not to the bit; within one process a text is embedded once, so that six rewards
on one embedder cost as much as one.

Source: Reimers and Gurevych 2019, "Sentence-BERT", section 3 (mean pooling).
"""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from transformers import AutoModel, AutoTokenizer
from transformers import PreTrainedTokenizerBase as Tokenizer

from palate.models.embedded import NO_CODE, SAFE_WEIGHTS, reading_model, resolve_embedder
from palate.rewards.classifier import hash_of, quiet

BATCH = 32
MAX_KNOWN = 50_000  # embeddings that are remembered: 77 MB at 384 numbers each


class Embedder:
    """A loaded encoder that remembers what it has embedded."""

    def __init__(self, model: Any, tokenizer: Tokenizer, *, max_length: int) -> None:
        """Take a model in evaluation mode, its own tokenizer, and the most tokens of a text."""
        self.model, self.tokenizer, self.max_length = model, tokenizer, max_length
        self._known: dict[str, Float[ndarray, " hidden"]] = {}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of parameters, tokenizer and the most tokens of a text."""
        return hash_of(self.model, self.tokenizer, str(self.max_length))

    @property
    def n_hidden(self) -> int:
        """Numbers in an embedding."""
        return int(self.model.config.hidden_size)

    def embed(
        self, texts: Sequence[str], *, on_step: Callable[[int, int], None] | None = None
    ) -> Float[ndarray, "texts hidden"]:
        """Embeddings of Euclidean length one, `[texts, hidden]`; `on_step` hears texts done."""
        known = self._known
        new = sorted(
            {text for text in texts if text not in known}, key=lambda text: (len(text), text)
        )
        fresh: dict[str, Float[ndarray, " hidden"]] = {}
        for start in range(0, len(new), BATCH):
            part = new[start : start + BATCH]
            fresh.update(zip(part, self._embed(part), strict=True))
            if on_step is not None:
                on_step(start + len(part), len(new))
        rows = [fresh[text] if text in fresh else known[text] for text in texts]
        if len(known) + len(fresh) > MAX_KNOWN:
            self._known = known = {}
        known.update(fresh)
        return np.array(rows, dtype=np.float64).reshape(len(texts), self.n_hidden)

    def _embed(self, texts: Sequence[str]) -> Float[ndarray, "texts hidden"]:
        batch: Any = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        ).to(self.model.device)
        with torch.inference_mode():
            states = self.model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
        means = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        return torch.nn.functional.normalize(means, dim=-1).cpu().numpy()


@lru_cache(maxsize=2)
def load_embedder(name: str, *, max_length: int, device: str = "cpu") -> Embedder:
    """The embedder of that name, loaded once per process.

    It is `all-minilm-l6-v2`, or the folder or hub id of an encoder, which may allow fewer tokens.

    Raises:
        InvalidInputError: the model is not there.
        FormatError: what is there is no encoder with a tokenizer.
    """
    where = resolve_embedder(name)
    with reading_model(where, what="sentence embedder"), quiet():
        tokenizer = AutoTokenizer.from_pretrained(where, **NO_CODE)
        model: Any = AutoModel.from_pretrained(where, dtype=torch.float32, **SAFE_WEIGHTS)
    if hasattr(model, "pooler"):
        model.pooler = None  # not used, and drawn at random where a checkpoint has none
    positions = getattr(model.config, "max_position_embeddings", None) or max_length
    model.eval().requires_grad_(requires_grad=False)
    return Embedder(
        model.to(torch.device(device)), tokenizer, max_length=min(max_length, int(positions))
    )
