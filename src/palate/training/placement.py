"""Which layers of the base an expert adapts, and with what rank.

Target modules, named as in PEFT, or a list of names of layers:

    all-linear  every linear layer of attention and MLP: the most freedom; of a mixture of experts
                all but its routers and the experts, which tokens pass one by one
    lm_head     the unembedding alone: then parameter soup and output soup are the same linear map
    top_no_kv   queries, attention outputs and MLP of the last blocks: keys and values stay the
                base's, so users can share one cache of the prompt

Source:
    methods README C8 (head-only equality); Spectral Souping, arXiv 2605.20408, sections 4.1 and 8.
"""

from collections.abc import Sequence
from typing import Literal

from peft import LoraConfig
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from pydantic import Field, field_validator
from torch import nn
from transformers import PreTrainedModel

from palate.core.errors import InvalidInputError
from palate.core.settings import Settings
from palate.models.reach import BLOCK, is_adaptable, is_after_keys

ALL, HEAD, TOP = "all-linear", "lm_head", "top_no_kv"
_FUSED = ("c_attn", "qkv_proj", "query_key_value", "qkv", "Wqkv", "W_pack", "in_proj")


class AdapterSettings(Settings):
    """The shape of an adapter; the same for every expert of a library."""

    RENAMED = {  # noqa: RUF012  (a ClassVar of the base)
        "rank": "r",
        "is_rslora": "use_rslora",
        "placement": "target_modules",
    }

    r: int = Field(default=16, ge=1)  # rank: rows of A and columns of B
    lora_alpha: float = Field(default=32.0, gt=0)  # the update is scaled by `lora_alpha / r`
    use_rslora: bool = False  # scale by `lora_alpha / sqrt(r)` instead
    target_modules: str | tuple[str, ...] = ALL  # or `lm_head`, `top_no_kv`, or a list of names
    n_top_blocks: int = Field(default=2, ge=1)  # for `top_no_kv`: how many of the last blocks
    dtype: Literal["float32", "bfloat16"] = "float32"  # as stored; it is trained in float32

    @field_validator("target_modules")
    @classmethod
    def _is_known(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value or (isinstance(value, str) and value not in (ALL, HEAD, TOP)):
            raise ValueError(f"use {ALL}, {HEAD}, {TOP} or a list of names of layers")
        return value

    @property
    def adapts_head(self) -> bool:
        """Whether the unembedding is among the layers."""
        return HEAD in (self.target_modules, *self.target_modules)


def lora_config(model: PreTrainedModel, settings: AdapterSettings) -> LoraConfig:
    """The PEFT configuration of an expert on this base; raises as `target_modules`."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.r,
        lora_alpha=settings.lora_alpha,  # pyright: ignore[reportArgumentType]  (annotated int, used as a number)
        use_rslora=settings.use_rslora,
        lora_dropout=0.0,
        bias="none",
        target_modules=target_modules(model, settings),
    )


def target_modules(model: PreTrainedModel, settings: AdapterSettings) -> list[str]:
    """Full names of the adapted layers.

    Raises:
        InvalidInputError: the base has no such layers.
    """
    head = model.get_output_embeddings()
    names = [name for name, module in model.named_modules() if module is head]
    if settings.target_modules == HEAD:
        unembedding(model)
        return names
    linear = [
        name
        for name, module in model.named_modules()
        if is_adaptable(name, module) and module is not head and BLOCK.search(name)
    ]
    layers = linear = _not_fused(model, linear)
    if not isinstance(settings.target_modules, str):
        layers = _listed(settings.target_modules, (*linear, *names))
    elif settings.target_modules == TOP:
        layers = _top_without_keys(linear, n_blocks=settings.n_top_blocks)
    if not layers:
        raise InvalidInputError(
            f"The base {model.name_or_path!r} has no linear layers for target_modules "
            f"{settings.target_modules!r}; use others."
        )
    return layers


def unembedding(model: PreTrainedModel) -> nn.Module:
    """The layer that gives logits, `[vocab, hidden]`; InvalidInputError where there is none."""
    head = model.get_output_embeddings()
    if head is None:
        raise InvalidInputError(
            f"The base {model.name_or_path!r} has no unembedding layer; use target_modules {ALL!r}."
        )
    return head


def _not_fused(model: PreTrainedModel, names: list[str]) -> list[str]:
    """The layers without those that peft would take for a mixture's fused experts, by their ends.

    It then adapts the experts instead, whose factors belong to no linear layer.
    """
    trial = LoraConfig(target_modules=names)
    convert_peft_config_for_transformers(trial, model=model, conversions=None)
    linear = trial.target_modules or ()
    return [name for name in names if name in linear]


def _listed(endings: Sequence[str], names: Sequence[str]) -> list[str]:
    known = {name.rpartition(".")[2] for name in names}
    unknown = [ending for ending in endings if ending not in known]
    if unknown:
        raise InvalidInputError(
            f"The base has no linear layer {unknown[0]!r}, which target_modules names; it has "
            f"{', '.join(sorted(known))}."
        )
    return [name for name in names if name.rpartition(".")[2] in endings]


def _top_without_keys(names: Sequence[str], *, n_blocks: int) -> list[str]:
    fused = [name for name in names if name.rpartition(".")[2] in _FUSED]
    if fused:
        raise InvalidInputError(
            f"The layer {fused[0]!r} makes queries, keys and values at once, so "
            f"target_modules {TOP!r} cannot leave keys and values alone; use {ALL!r} or {HEAD!r}."
        )
    block_of = {name: int(match[1]) for name in names if (match := BLOCK.search(name))}
    first = max(block_of.values(), default=-1) + 1 - n_blocks
    return [name for name, block in block_of.items() if block >= first and is_after_keys(name)]
