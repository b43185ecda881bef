"""Load any Hugging Face causal language model, by folder, hub id and revision, or name of ours.

A base is identified by a hash of its parameter, configuration and tokenizer files, so that a
library built on one base is never answered from another. Offline works: a folder needs no network,
and a hub id is read from the local cache when the hub cannot be reached.
"""

from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.utils import logging as transformers_logging

from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import hash_files, hash_value
from palate.models.dtype import AUTO, QUANTIZED, faster_dtype, load_options, require_dtype
from palate.models.embedded import NO_CODE, SAFE_WEIGHTS, reading_model, resolve_base
from palate.models.packed import pack_linear
from palate.models.probe import require_batchable
from palate.models.template import render_chat

NO_LIMIT = int(1e30)  # transformers' own
_IDENTITY_FILES = ("*.safetensors", "config.json", "tokenizer.json", "tokenizer.model")


class Turn(type(RLock())):  # pyright: ignore[reportGeneralTypeIssues]
    """A lock that copies share: the hooks of a bank hold it, and go with a copy of their model."""

    def __deepcopy__(self, memo: object) -> "Turn":
        """Itself."""
        return self


@dataclass(frozen=True)
class Base:
    """A frozen base model with its tokenizer."""

    model: PreTrainedModel  # in evaluation mode, no parameter requires a gradient
    tokenizer: Tokenizer  # fast tokenizer; its padding token is set
    path: str  # folder, hub id, GGUF file or name of ours, as it was given
    revision: str | None  # hub revision, or `None` for a folder
    fingerprint: str  # hash of the parameters, configuration and tokenizer
    tokenizer_fingerprint: str  # hash of the vocabulary and special tokens
    # held by a pass with experts: several banks may share the base, and threads take turns
    turn: Turn = field(default_factory=Turn, repr=False, compare=False)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.model.device

    @property
    def dtype(self) -> str:
        """Data type of the parameters, such as `bfloat16`."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def n_positions(self) -> int | None:
        """Most tokens that the model was made to read, or `None` where it does not say.

        Where rotary positions change with the longest text of a batch (longrope; dynamic ones
        do so above it), the length up to which they do not: answers must not depend on others.
        """
        config: Any = self.model.config.get_text_config()
        ropes: Any = getattr(config, "rope_parameters", None) or {}
        lengths = [getattr(config, "max_position_embeddings", None)]
        lengths += [  # of the model, or of each kind of its layers
            rope.get("original_max_position_embeddings")
            for rope in (ropes, *ropes.values())
            if isinstance(rope, dict) and rope.get("rope_type") == "longrope"
        ]
        return min((n for n in lengths if isinstance(n, int) and n > 0), default=None)

    @property
    def n_vocab(self) -> int:
        """Token ids that the model has embeddings of."""
        embeddings: Any = self.model.get_input_embeddings()
        return int(embeddings.weight.shape[0])

    @cached_property
    def text_fingerprint(self) -> str:
        """Hash of all that turns conversations into tokens and ends answers."""
        backend: Any = self.tokenizer.backend_tokenizer
        template = getattr(self.tokenizer, "chat_template", None)
        return hash_value([backend.to_str(), template, sorted(self.stop_ids)])

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Token ids that end an answer: the generation config's and the tokenizer's."""
        ends = getattr(self.model.generation_config, "eos_token_id", None)
        ids: list[Any] = ends if isinstance(ends, list) else [ends]
        ids = [*ids, self.tokenizer.eos_token_id]
        return frozenset(int(i) for i in ids if i is not None)


def load_base(
    path: str | Path, *, revision: str | None = None, dtype: str = "float32", device: str = "cpu"
) -> Base:
    """The base model at `path`.

    The path is a folder with a Hugging Face model, a hub id, a GGUF file, or `smollm2-135m`. `auto`
    is on a GPU the model's own dtype, and on a CPU the faster of float32 and bfloat16
    (`palate.models.dtype`); a GPU also has `8bit` and `4bit` by bitsandbytes.

    Raises:
        InvalidInputError: there is no such folder or hub id, or the dtype is unknown or needs a
            GPU.
        FormatError: what is there is not a causal language model with a tokenizer, or one that
            cannot be batched exactly.
        MissingExtraError: a GGUF file is to be converted, and `gguf` is not installed; or the base
            is to be quantised, and `bitsandbytes` is not.
    """
    require_dtype(dtype, device=device)
    name = str(path)
    transformers_logging.disable_progress_bar()  # bars of ours only
    place = resolve_base(name)
    with reading_model(place, what="base model", kind="causal language model"):
        config = AutoConfig.from_pretrained(place, revision=revision, **NO_CODE)
        tokenizer = AutoTokenizer.from_pretrained(place, revision=revision, **NO_CODE)
        is_own = torch.device(device).type == "cpu"  # else the file is copied to the device
        options = SAFE_WEIGHTS | {"disable_mmap": is_own}
        load = partial(AutoModelForCausalLM.from_pretrained, place, revision=revision, **options)
        if dtype == AUTO and torch.device(device).type == "cpu":
            dtype = faster_dtype(f"{place}@{revision}", lambda each: load(dtype=each))
        model = load(**load_options(dtype, device=device))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    tokenizer.model_max_length = NO_LIMIT  # or else it warns of "indexing errors"; we count tokens
    model.requires_grad_(requires_grad=False)
    model.eval()
    if dtype not in QUANTIZED:  # those are on the device already
        nn.Module.to(model, torch.device(device))
    pack_linear(model)
    _require_template(tokenizer, name)
    fingerprint = _fingerprint(place, config=config, model=model)
    require_batchable(model, name=name, fingerprint=fingerprint)
    return Base(
        model=model,
        tokenizer=tokenizer,
        path=name,
        revision=revision,
        fingerprint=fingerprint,
        tokenizer_fingerprint=tokenizer_fingerprint(tokenizer),
    )


def _require_template(tokenizer: Tokenizer, name: str) -> None:
    if not getattr(tokenizer, "chat_template", None):
        return
    try:
        render_chat(tokenizer, [{"role": "user", "content": "Hello."}], base=name)
    except InvalidInputError as error:
        raise FormatError(str(error)) from error


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """Hash of the vocabulary and the special ids: equal hashes mean equal token ids."""
    specials = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    return hash_value({"vocabulary": tokenizer.get_vocab(), "specials": specials})


def tokenizer_of(path: str | Path) -> str:
    """Fingerprint of the tokenizer at a folder or hub id; raises as `reading_model`."""
    place = resolve_base(str(path))
    with reading_model(place, what="tokenizer"):
        return tokenizer_fingerprint(AutoTokenizer.from_pretrained(place, **NO_CODE))


def require_same_tokenizer(*, left: tuple[str, str], right: tuple[str, str]) -> None:
    """Return when two (name, tokenizer fingerprint) pairs agree; FormatError where not."""
    if left[1] != right[1]:
        raise FormatError(
            f"The tokenizers of {left[0]!r} and {right[0]!r} differ (hashes {left[1][:12]} and "
            f"{right[1][:12]}); rows that are pooled must share token ids."
        )


def _fingerprint(name: str, *, config: Any, model: PreTrainedModel) -> str:
    folder = Path(name)
    if folder.is_dir():
        files = [file for pattern in _IDENTITY_FILES for file in folder.glob(pattern)]
        return hash_files(files)
    commit = getattr(config, "_commit_hash", None)
    return hash_value({"id": name, "commit": commit, "parameters": model.num_parameters()})
