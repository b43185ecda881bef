"""Which layers of the base an expert adapts, and with what rank.

Placements:

    all         every linear layer of attention and MLP: the most freedom
    head        the unembedding alone: then parameter soup and output soup are the same linear map
    top_no_kv   queries, attention outputs and MLP of the last blocks: keys and values stay the
                base's, so users can share one cache of the prompt

Source:
    methods README C8 (head-only equality); Spectral Souping, arXiv 2605.20408, sections 4.1 and 8.
"""

from collections.abc import Sequence
from typing import Literal

from peft import LoraConfig
from pydantic import Field
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from palate.core.errors import InvalidInputError
from palate.core.settings import Settings
from palate.models.reach import BLOCK, is_after_keys

_FUSED = ("c_attn", "qkv_proj", "query_key_value", "qkv", "Wqkv", "W_pack", "in_proj")


class AdapterSettings(Settings):
    """The shape of an adapter; the same for every expert of a library.

    Attributes:
        rank: Rows of A and columns of B.
        lora_alpha: The update is scaled by `lora_alpha / rank`.
        is_rslora: Scale by `lora_alpha / sqrt(rank)` instead.
        placement: Which layers are adapted; see the module's text.
        n_top_blocks: For `top_no_kv`: how many of the last blocks.
    """

    rank: int = Field(default=16, ge=1)
    lora_alpha: float = Field(default=32.0, gt=0)
    is_rslora: bool = False
    placement: Literal["all", "head", "top_no_kv"] = "all"
    n_top_blocks: int = Field(default=2, ge=1)


def lora_config(model: PreTrainedModel, settings: AdapterSettings) -> LoraConfig:
    """The PEFT configuration of an expert on this base.

    Raises:
        InvalidInputError: the base has no layers of the kind that the placement adapts.
    """
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.lora_alpha,  # pyright: ignore[reportArgumentType]  (annotated int, used as a number)
        use_rslora=settings.is_rslora,
        lora_dropout=0.0,
        bias="none",
        target_modules=target_modules(model, settings),
    )


def target_modules(model: PreTrainedModel, settings: AdapterSettings) -> list[str]:
    """Names of the adapted layers: endings for `all`, full names for the other placements.

    Raises:
        InvalidInputError: the base has no layers of the kind that the placement adapts.
    """
    head = model.get_output_embeddings()
    names = [name for name, module in model.named_modules() if module is head]
    if settings.placement == "head":
        if not names:
            raise InvalidInputError(
                f"The base {model.name_or_path!r} has no unembedding layer; use placement 'all'."
            )
        return names
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and BLOCK.search(name)
    ]
    if settings.placement == "top_no_kv":
        linear = _top_without_keys(linear, n_blocks=settings.n_top_blocks)
        found = linear
    else:
        found = sorted({name.rpartition(".")[2] for name in linear})
    if not found:
        raise InvalidInputError(
            f"The base {model.name_or_path!r} has no linear layers for the placement "
            f"{settings.placement!r}; use another placement."
        )
    return found


def _top_without_keys(names: Sequence[str], *, n_blocks: int) -> list[str]:
    fused = [name for name in names if name.rpartition(".")[2] in _FUSED]
    if fused:
        raise InvalidInputError(
            f"The layer {fused[0]!r} makes queries, keys and values at once, so the placement "
            "'top_no_kv' cannot leave keys and values alone; use placement 'all' or 'head'."
        )
    block_of = {name: int(match[1]) for name in names if (match := BLOCK.search(name))}
    first = max(block_of.values(), default=-1) + 1 - n_blocks
    return [name for name, block in block_of.items() if block >= first and is_after_keys(name)]
