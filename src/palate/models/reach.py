"""How far the change of a layer reaches: into keys and values that later tokens read, or not.

    head    the unembedding: hidden states, keys and values stay the base's, only logits change
    last    in the last block, after its keys and values: the hidden state changes, the cache not
    cache   everything else, and every layer whose name says nothing certain

Rows whose experts reach no further than `last` can share one cache of a prompt, and those that stop
at `head` share the whole pass. The answer errs on the side of `cache`, which is always right.
"""

import re
from collections.abc import Iterable
from typing import Literal

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

Reach = Literal["head", "last", "cache"]

BLOCK = re.compile(r"\.(\d+)\.")
ROUTED = re.compile(r"\.experts\.\d+\.|\brouter\b")
# linear layers that read a block's input or inner states and make neither its keys nor its values
AFTER_KEYS = frozenset(
    (
        *("q_proj", "o_proj", "out_proj", "gate_proj", "up_proj", "down_proj", "gate_up_proj"),
        *("c_fc", "c_proj", "fc1", "fc2", "fc_in", "fc_out"),
        *("dense", "dense_h_to_4h", "dense_4h_to_h"),
    )
)


def reach_of(model: PreTrainedModel, layers: Iterable[str]) -> dict[str, Reach]:
    """How far each of these layers reaches.

    Example:
        >>> # doctest: +SKIP
        >>> reach_of(llama, ["lm_head", "model.layers.31.mlp.up_proj"])
        {"lm_head": "head", "model.layers.31.mlp.up_proj": "last"}
    """
    head = head_of(model)
    modules = dict(model.named_modules())
    last = max((int(match[1]) for name in modules if (match := BLOCK.search(name))), default=-1)
    reaches: dict[str, Reach] = {}
    for name in layers:
        block = BLOCK.search(name)
        if head is not None and modules.get(name) is head:
            reaches[name] = "head"
        elif block and int(block[1]) == last and is_after_keys(name):
            reaches[name] = "last"
        else:
            reaches[name] = "cache"
    return reaches


def is_after_keys(layer: str) -> bool:
    """Whether a layer of this name leaves its own block's keys and values alone."""
    return layer.rpartition(".")[2] in AFTER_KEYS


def is_adaptable(layer: str, module: nn.Module | None) -> bool:
    """Whether every token of a batch passes this layer in turn, and it is a plain matrix.

    Subclasses of `nn.Linear` return other things (PhiMoE's router), except bitsandbytes' own.
    """
    name = type(module).__name__
    is_plain = isinstance(module, Conv1D) or (isinstance(module, nn.Linear) and "Linear" in name)
    return is_plain and not ROUTED.search(layer)


def head_of(model: PreTrainedModel) -> nn.Module | None:
    """The unembedding, where the model says which layer it is."""
    return model.get_output_embeddings()
