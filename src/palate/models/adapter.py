"""An adapter as plain factors: read from, and written to, a PEFT folder.

An adapter adds `scale * B A` to the matrix of some linear layers. Only plain LoRA is read; options
that change the formula (DoRA, biases, fully saved modules) are refused rather than ignored.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import is_finite_number, read_json, reading, write_folder_atomic
from palate.soup.merge import Factors

CONFIG, PARAMETERS = "adapter_config.json", "adapter_model.safetensors"
MAX_PATTERN = 200  # characters
_SLOW = re.compile(r"\)[*+?{]|([*+}].*){4}")  # repeated groups, or many repetitions
_PREFIX = "base_model.model."
_KEY = re.compile(
    r"^(?:base_model\.model\.)?(?P<module>.+)"
    r"\.lora_(?P<side>[AB])(?:\.default)?\.weight$"
)
_REFUSED = (
    "use_dora",
    "modules_to_save",
    "lora_bias",
    "trainable_token_indices",
    "alora_invocation_tokens",
)

# starts that put a part of the base's matrix into the factors and take it off the base
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True, eq=False)
class Factor:
    """What an adapter adds to one linear layer: `scale * up @ down`."""

    down: Float[Tensor, "rank d_in"]  # `[rank, d_in]`, called A in the literature
    up: Float[Tensor, "d_out rank"]  # `[d_out, rank]`, called B
    scale: float  # `lora_alpha / rank`, or `lora_alpha / sqrt(rank)` with rsLoRA

    @property
    def rank(self) -> int:
        """Number of rows of `down`."""
        return self.down.shape[0]


Adapter = Mapping[str, Factor]  # name of a linear layer -> what is added to it


def load_adapter(folder: Path) -> dict[str, Factor]:
    """The factors in a PEFT folder, in float32.

    Raises:
        InvalidInputError: the folder or one of its two files is missing.
        FormatError: it is not a plain LoRA adapter.
    """
    for name in (CONFIG, PARAMETERS):
        if not (folder / name).is_file():
            raise InvalidInputError(
                f"The adapter folder {str(folder)!r} has no {name}; give a PEFT adapter folder."
            )
    with reading(folder / CONFIG, remedy="copy or train the adapter again"):
        return _factors(folder, _config(folder))


def _factors(folder: Path, config: Mapping[str, Any]) -> dict[str, Factor]:
    parts: dict[str, dict[str, Tensor]] = {}
    try:
        tensors = load_file(folder / PARAMETERS)
    except (OSError, SafetensorError) as error:
        raise FormatError(
            f"The adapter {str(folder)!r} cannot be read ({error}); copy or train it again."
        ) from error
    for key, value in tensors.items():
        if key.endswith(".base_layer.weight"):  # peft's copy of a matrix beside a head adapter
            continue
        match = _KEY.match(key)
        if match is None:
            raise FormatError(
                f"The adapter {str(folder)!r} holds {key!r}, which is not a LoRA factor of a "
                "linear layer; only plain LoRA adapters can be stacked."
            )
        parts.setdefault(match["module"], {})[match["side"]] = value.to(torch.float32)
    if not parts or any(set(sides) != {"A", "B"} for sides in parts.values()):
        raise FormatError(f"The adapter {str(folder)!r} lacks factors; train or save it again.")
    return {
        module: Factor(
            sides["A"], sides["B"], _scale(config, module=module, rank=sides["A"].shape[0])
        )
        for module, sides in parts.items()
    }


def save_adapter(adapter: Adapter, folder: Path, *, base_path: str) -> None:
    """Write the factors as a PEFT folder that peft, vLLM and LoRAX read.

    The folder is replaced as a whole. Ranks and scales that differ between layers become patterns.

    Raises:
        InvalidInputError: the adapter is empty.
    """
    if not adapter:
        raise InvalidInputError("The adapter has no factors; nothing was written.")
    rank = max(factor.rank for factor in adapter.values())
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_path,
        "inference_mode": True,
        "bias": "none",
        "lora_dropout": 0.0,
        "fan_in_fan_out": False,
        "use_rslora": False,
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted(adapter),
        "rank_pattern": {re.escape(n): f.rank for n, f in adapter.items() if f.rank != rank},
        "alpha_pattern": {
            re.escape(n): f.scale * f.rank
            for n, f in adapter.items()
            if not math.isclose(f.scale * f.rank, rank, rel_tol=1e-12)
        },
    }
    tensors = {
        f"{_PREFIX}{name}.lora_{side}.weight": value.contiguous()
        for name, factor in adapter.items()
        for side, value in (("A", factor.down), ("B", factor.up))
    }

    def fill(target: Path) -> None:
        (target / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        save_file(tensors, target / PARAMETERS, metadata={"format": "pt"})

    write_folder_atomic(folder, fill)


def as_factors(adapter: Adapter) -> dict[str, Factors]:
    """An adapter's factors by layer, in float64 numpy."""
    return {
        layer: Factors(one.down.double().numpy(), one.up.double().numpy(), one.scale * one.rank)
        for layer, one in adapter.items()
    }


def as_factor(factors: Factors) -> Factor:
    """A layer's factors back in torch, in float32."""
    down, up = (torch.from_numpy(part).float() for part in (factors.A, factors.B))
    return Factor(down, up, float(factors.scale))


def _config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / CONFIG, what="adapter's configuration")
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise FormatError(f"The adapter {str(folder)!r} is of type {kind!r}, not 'LORA'.")
    start = str(config.get("init_lora_weights")).lower()
    if start.startswith(_CHANGE_THE_BASE):
        raise FormatError(
            f"The adapter {str(folder)!r} is relative to a base that its start "
            f"init_lora_weights={start!r} changed; save it with peft's "
            "`path_initial_model_for_weight_conversion`, which makes plain LoRA of it."
        )
    for key in _REFUSED:
        if config.get(key):
            raise FormatError(
                f"The adapter {str(folder)!r} sets {key}, which is more than scale * B A; "
                "train it without."
            )
    if config.get("bias", "none") != "none":
        raise FormatError(f"The adapter {str(folder)!r} trains biases; train it with bias='none'.")
    return config


def _scale(config: Mapping[str, Any], *, module: str, rank: int) -> float:
    alpha = _by_pattern(config.get("alpha_pattern") or {}, module, config.get("lora_alpha"))
    if rank < 1 or not is_finite_number(alpha):
        raise FormatError(f"The layer {module!r} has rank {rank}, lora_alpha {alpha}; retrain it.")
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    for pattern, value in patterns.items():  # peft's rule: the first pattern that ends the name
        if _SLOW.search(pattern) or len(pattern) > MAX_PATTERN:
            raise FormatError(
                f"The adapter's pattern {pattern[:40]!r} repeats a group or is too long, and could "
                "be searched for ever; write full names of layers."
            )
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
