"""The trunk of a controller: a small decoder that reads token ids and a vector of strengths.

    hidden_t = decoder(embedding(token_1..t) + strengths @ S)[t]

The strengths are added to every token's embedding, so they cost no position and stay valid in a
key-value cache. A trunk is fresh (a Llama of given shape) or any Hugging Face decoder; the language
model's head is not part of it. Parameters are float32 whatever the base is.

The library's own base can be the trunk, too: it is shared, stays frozen and in its own dtype, is
stored with no controller, and strengths are not added to its embeddings.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, LlamaConfig, LlamaModel, PreTrainedModel
from transformers.cache_utils import Cache

from palate.core.errors import FormatError, InvalidInputError
from palate.core.seeds import derive_seed
from palate.core.settings import Settings
from palate.models.cache import RowCache, empty_kv
from palate.models.embedded import SAFE_WEIGHTS, reading_model

MAX_POSITIONS = 4096  # rotary positions have no parameters, so this costs nothing
BASE = "base"  # as a path: the library's own base
MAX_STATES = 2048  # texts whose hidden states a frozen trunk keeps for the next epoch


class TrunkSettings(Settings):
    """Shape of a trunk."""

    # of a decoder to start from, its hub id, or `base`, the library's own; `None`: a fresh Llama
    path: str | None = None
    hidden: int = Field(default=96, ge=2)  # width of a fresh trunk
    layers: int = Field(default=2, ge=1)  # blocks of a fresh trunk
    heads: int = Field(default=4, ge=1)  # attention heads of a fresh trunk; divides `hidden`
    feed_forward: int = Field(default=256, ge=1)  # inner width of a fresh trunk


class Trunk(nn.Module):
    """A decoder with strengths.

    Attributes:
        hidden_size: Width of what comes out.
    """

    def __init__(self, decoder: Any, *, n_strengths: int) -> None:
        """Join a decoder to a fresh matrix for the strengths; see `new_trunk`."""
        super().__init__()
        config = decoder.config
        self.decoder: Any = decoder
        self.hidden_size = int(config.hidden_size)
        self.strengths = nn.Linear(n_strengths, self.hidden_size, bias=False)
        nn.init.normal_(self.strengths.weight, std=float(config.initializer_range))

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return self.strengths.weight.device

    def forward(
        self,
        ids: Int[Tensor, "batch seq"],
        mask: Int[Tensor, "batch seq"],
        strengths: Float[Tensor, "batch strengths"],
    ) -> Float[Tensor, "batch seq hidden"]:
        """Hidden states of whole texts; padding may be on either side."""
        return self._run(ids, mask, strengths, kv=None)

    def read(
        self, contexts: list[tuple[int, ...]], strengths: Float[Tensor, "batch strengths"]
    ) -> tuple[Float[Tensor, "batch hidden"], RowCache]:
        """The hidden state after each context, and the cache to go on from."""
        width = max(len(context) for context in contexts)
        device = self.device
        ids = torch.tensor([[0] * (width - len(c)) + list(c) for c in contexts], device=device)
        mask = torch.tensor(
            [[0] * (width - len(c)) + [1] * len(c) for c in contexts], device=device
        )
        cache = RowCache(empty_kv(), mask)
        return self._run(ids, mask, strengths, kv=cache.kv)[:, -1], cache

    def advance(
        self,
        tokens: Int[Tensor, " batch"],
        cache: RowCache,
        strengths: Float[Tensor, "batch strengths"],
    ) -> Float[Tensor, "batch hidden"]:
        """The hidden state after one token more in each row; the cache grows."""
        cache.extend()
        return self._run(tokens.unsqueeze(1), cache.mask, strengths, kv=cache.kv)[:, -1]

    def _run(self, ids: Tensor, mask: Tensor, strengths: Tensor, *, kv: Cache | None) -> Tensor:
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = self.decoder(
            inputs_embeds=self._embedded(ids, strengths),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=kv,
            use_cache=kv is not None,
        )
        return output.last_hidden_state.float()

    def _embedded(self, ids: Tensor, strengths: Tensor) -> Tensor:
        return self.decoder.get_input_embeddings()(ids) + self.strengths(strengths).unsqueeze(1)


class FrozenTrunk(Trunk):
    """A base as trunk, which others own; it has no parameters of its own."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Use the decoder of a base."""
        nn.Module.__init__(self)
        self._owned = (model.get_decoder(),)  # in a tuple, so that it is no part of this module
        self.hidden_size = int(model.config.hidden_size)
        self._states: dict[bytes, Tensor] = {}

    @property
    def decoder(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The base's."""
        return self._owned[0]

    @property
    def device(self) -> torch.device:
        """The base's."""
        return self.decoder.device

    @torch.no_grad()
    def forward(
        self,
        ids: Int[Tensor, "batch seq"],
        mask: Int[Tensor, "batch seq"],
        strengths: Float[Tensor, "batch strengths"],
    ) -> Float[Tensor, "batch seq hidden"]:
        """Hidden states of whole texts, padded on the right; kept, since they do not change."""
        texts = [row[own > 0] for row, own in zip(ids, mask, strict=True)]
        keys = [text.cpu().numpy().tobytes() for text in texts]
        missing = [place for place, key in enumerate(keys) if key not in self._states]
        if len(self._states) + len(missing) > MAX_STATES:
            self._states, missing = {}, list(range(len(keys)))
        for some in _of_like_length(missing, texts):
            cut = max(len(texts[place]) for place in some)
            states = self._run(ids[some, :cut], mask[some, :cut], strengths[some], kv=None)
            for place, own in zip(some, states, strict=True):
                self._states[keys[place]] = own[: len(texts[place])].clone()
        result = torch.zeros(*ids.shape, self.hidden_size, device=ids.device)
        for place, key in enumerate(keys):
            result[place, : len(texts[place])] = self._states[key]
        return result

    def _embedded(self, ids: Tensor, strengths: Tensor) -> Tensor:
        del strengths
        return self.decoder.get_input_embeddings()(ids)


def _of_like_length(places: Sequence[int], texts: Sequence[Tensor]) -> list[list[int]]:
    """The places in groups of 16, shortest texts first."""
    ordered = sorted(places, key=lambda place: len(texts[place]))
    return [ordered[first : first + 16] for first in range(0, len(ordered), 16)]


def new_trunk(
    settings: TrunkSettings,
    *,
    n_vocab: int,
    n_strengths: int,
    seed: int,
    base: PreTrainedModel | None = None,
) -> tuple[Trunk, dict[str, Any]]:
    """A trunk to be trained, and the configuration from which `trunk_of` makes its like.

    A trunk that is loaded must know as many token ids as the base. The seed is of fresh parameters;
    `base` is what the path `base` means.

    Raises:
        InvalidInputError: the width is no multiple of the heads, or nothing is at the path.
        FormatError: the decoder at the path has another vocabulary.
    """
    if settings.path == BASE and base is not None:
        return FrozenTrunk(base), {"decoder": BASE, "n_strengths": n_strengths}
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "trunk"))
        decoder = _fresh(settings, n_vocab) if settings.path is None else _loaded(settings.path)
        n_known = int(decoder.config.vocab_size)
        if n_known < n_vocab:
            raise FormatError(
                f"The trunk {settings.path!r} knows {n_known} token ids, but the base has "
                f"{n_vocab}; use a trunk with the base's tokenizer."
            )
        trunk = Trunk(decoder, n_strengths=n_strengths)
    return trunk, {"decoder": decoder.config.to_diff_dict(), "n_strengths": n_strengths}


def trunk_of(config: dict[str, Any], *, base: PreTrainedModel | None = None) -> Trunk:
    """A trunk of a configuration by `new_trunk`, to be loaded; raises anything of another one."""
    if base is not None and config["decoder"] == BASE:
        return FrozenTrunk(base)
    described: dict[str, Any] = {**config["decoder"]}
    decoder = AutoModel.from_config(AutoConfig.for_model(described.pop("model_type"), **described))
    return Trunk(decoder, n_strengths=int(config["n_strengths"]))


def _fresh(settings: TrunkSettings, n_vocab: int) -> Any:
    if settings.hidden % settings.heads or settings.hidden // settings.heads % 2:
        raise InvalidInputError(
            f"The trunk's width {settings.hidden} does not split into {settings.heads} heads of "
            "even width; change one of them."
        )
    return LlamaModel(
        LlamaConfig(
            vocab_size=n_vocab,
            hidden_size=settings.hidden,
            intermediate_size=settings.feed_forward,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.heads,
            max_position_embeddings=MAX_POSITIONS,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def _loaded(path: str) -> Any:
    with reading_model(path, what="trunk"):
        return AutoModel.from_pretrained(path, dtype=torch.float32, **SAFE_WEIGHTS)
