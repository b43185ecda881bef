"""A trained adapter as a PEFT folder whose bytes depend on the adapter alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import Tensor

from palate.core.files import read_json, write_json, write_text_atomic
from palate.training.card import CARD

CONFIG = "adapter_config.json"
PARAMETERS = "adapter_model.safetensors"


def fill_expert_folder(
    folder: Path,
    *,
    model: PeftModel,
    base_path: str,
    card: str,
    parameters: Mapping[str, Tensor] | None = None,
) -> None:
    """Write `adapter_config.json`, `adapter_model.safetensors` and the card into the folder.

    PEFT writes its sets in an order that differs between processes, so the configuration is written
    again with sorted keys and lists.

    Args:
        folder: Exists.
        model: The base with one trained adapter.
        base_path: What the configuration calls the base.
        card: The model card.
        parameters: By name, where the model itself has only shards of them.
    """
    named: dict[str, Any] = {} if parameters is None else {"state_dict": dict(parameters)}
    model.save_pretrained(
        str(folder), safe_serialization=True, save_embedding_layers=False, **named
    )
    (folder / PARAMETERS).chmod(0o644)  # safetensors makes files that others cannot read
    config: dict[str, Any] = read_json(folder / CONFIG)
    config["base_model_name_or_path"] = base_path
    config["target_modules"] = sorted(config["target_modules"])
    write_json(folder / CONFIG, dict(sorted(config.items())))
    write_text_atomic(folder / CARD, card)
