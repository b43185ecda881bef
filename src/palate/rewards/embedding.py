"""The embedding trunk: a linear Bradley-Terry score of sentence embeddings, which read meaning.

Three blocks of features, of the answer's embedding `a` and the prompt's `p`, both of length one:
`a`, the products `a p` entry by entry, and their sum, the cosine. Each block is divided by one
number, so that its differences chosen minus rejected have mean squared length one, as in the light
trunk; the prompt alone cancels. The score is their sum with the coefficients of
`palate.rewards.bradley_terry`.

It sees no lengths and no words, so it is not fooled by what fools the light trunk: full stops
after every word, or an answer cut after three words (`docs/log.md`, 2026-11-29). It reads the first
`max_length` tokens only, and words in a random order lower it little.

An embedding is the mean of an encoder's last hidden states over the tokens, of length one; encoders
trained for sentence embeddings tell meanings apart. Those of one text alone and in a batch agree to
rounding, not to the bit; within one process a text is embedded once, so that six rewards on one
embedder cost as much as one.

The folder holds the embedder's name and hash, not its parameters: they are read from where the
name says, and refused where the hash differs.

Source: Reimers and Gurevych 2019, "Sentence-BERT", section 3 (mean pooling).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float
from safetensors.numpy import load_file, save
from transformers import AutoModel, AutoTokenizer
from transformers import PreTrainedTokenizerBase as Tokenizer

from palate.core.errors import FormatError
from palate.core.files import (
    hash_bytes,
    read_versioned,
    reading,
    require_file,
    write_bytes_atomic,
    write_versioned,
)
from palate.models.embedded import NO_CODE, SAFE_WEIGHTS, reading_model, resolve_embedder
from palate.rewards.bradley_terry import block_scale, fit_bradley_terry, select_ridge
from palate.rewards.card import Trunk
from palate.rewards.classifier import hash_of, quiet
from palate.rewards.pairs import PairSet
from palate.rewards.settings import EmbeddingSettings

BATCH = 32
MAX_KNOWN = 50_000  # embeddings that are remembered: 77 MB at 384 numbers each


class Embedder:
    """A loaded encoder that remembers what it has embedded."""

    def __init__(self, model: Any, tokenizer: Tokenizer, *, max_length: int) -> None:
        """Take a model in evaluation mode, its own tokenizer, and the most tokens of a text."""
        self.model, self.tokenizer, self.max_length = model, tokenizer, max_length
        self._known: dict[str, Float[np.ndarray, " hidden"]] = {}

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
    ) -> Float[np.ndarray, "texts hidden"]:
        """Embeddings of Euclidean length one, `[texts, hidden]`; `on_step` hears texts done."""
        known = self._known
        new = sorted(
            {text for text in texts if text not in known}, key=lambda text: (len(text), text)
        )
        fresh: dict[str, Float[np.ndarray, " hidden"]] = {}
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

    def _embed(self, texts: Sequence[str]) -> Float[np.ndarray, "texts hidden"]:
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


KIND, VERSION = "palate-embedding-reward", 1
_FACTS, _ARRAYS = "embedding.json", "embedding.safetensors"


@dataclass(frozen=True, eq=False)
class EmbeddingModel:
    """A fitted embedding reward: prompt and answer to log-odds."""

    trunk: ClassVar[Trunk] = "embedding"
    embedder: Embedder  # turns texts into vectors
    name: str  # the embedder's, as it was given
    coefficients: Float[np.ndarray, " features"]  # `[2 hidden + 1]`, per unit of the raw features
    ridge: float  # the price under which they were fitted

    @property
    def fingerprint(self) -> str:
        """Hash of everything a score depends on."""
        return hash_bytes(self.embedder.fingerprint.encode(), self.coefficients.tobytes())

    def raw(self, prompts: Sequence[str], answers: Sequence[str]) -> Float[np.ndarray, " texts"]:
        """Scores in log-odds, `[texts]`; only differences mean something, higher is better."""
        return np.hstack(_blocks(self.embedder, prompts, answers)) @ self.coefficients

    def save(self, folder: Path) -> None:
        """Write `embedding.json` and `embedding.safetensors` into the folder."""
        content = {
            "embedder": self.name,
            "hash": self.embedder.fingerprint,
            "max_length": self.embedder.max_length,
            "ridge": self.ridge,
        }
        write_versioned(folder / _FACTS, kind=KIND, version=VERSION, content=content)
        write_bytes_atomic(folder / _ARRAYS, save({"coefficients": self.coefficients}))


def fit_embedding(
    pairs: PairSet,
    *,
    settings: EmbeddingSettings,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> EmbeddingModel:
    """The embedding reward that explains the choices best.

    Pairs are of two groups or more unless settings give a ridge; only its folds are random.
    `on_step` hears texts embedded and texts in all.

    Raises:
        InvalidInputError: too few pairs or groups, or the embedder is not there.
        FormatError: what is there is no encoder with a tokenizer.
        NotConvergedError: a fit does not come to rest.
    """
    embedder = load_embedder(settings.trunk, max_length=settings.max_length, device=settings.device)
    embedder.embed([*pairs.prompts, *pairs.chosen, *pairs.rejected], on_step=on_step)
    chosen = _blocks(embedder, pairs.prompts, pairs.chosen)
    rejected = _blocks(embedder, pairs.prompts, pairs.rejected)
    differences = [sp.csr_matrix(a - b) for a, b in zip(chosen, rejected, strict=True)]
    scales = np.concatenate([block_scale(block) for block in differences])
    scaled = sp.csr_matrix(sp.hstack(differences, format="csr") @ sp.diags(scales))
    ridge = settings.ridge or select_ridge(
        scaled, groups=pairs.groups, grid=settings.ridges, seed=seed
    )
    coefficients = fit_bradley_terry(scaled, ridge=ridge) * scales
    return EmbeddingModel(embedder, settings.trunk, coefficients, ridge)


def load_embedding(folder: Path, *, device: str = "cpu") -> EmbeddingModel:
    """The model written by `EmbeddingModel.save`.

    Raises:
        InvalidInputError: a file is missing, or the embedder is not there.
        FormatError: a file is of another kind or version, or the embedder is another one.
    """
    content = read_versioned(folder / _FACTS, kind=KIND, version=VERSION)
    path = require_file(folder / _ARRAYS, what="file of an embedding reward")
    with reading(folder / _FACTS):
        coefficients = np.asarray(load_file(path)["coefficients"], dtype=np.float64)
        name, digest = str(content["embedder"]), str(content["hash"])
        max_length, ridge = int(content["max_length"]), float(content["ridge"])
    embedder = load_embedder(name, max_length=max_length, device=device)
    if embedder.fingerprint != digest or len(coefficients) != 2 * embedder.n_hidden + 1:
        raise FormatError(
            f"The reward {str(folder)!r} was fitted on an embedder of hash {digest[:12]}, but "
            f"{name!r} has hash {embedder.fingerprint[:12]}; give the embedder of then."
        )
    return EmbeddingModel(embedder, name, coefficients, ridge)


def _blocks(
    embedder: Embedder, prompts: Sequence[str], answers: Sequence[str]
) -> list[Float[np.ndarray, "texts features"]]:
    answer, prompt = embedder.embed(answers), embedder.embed(prompts)
    product = answer * prompt
    return [answer, product, product.sum(axis=1, keepdims=True)]
