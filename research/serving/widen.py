"""Wider attention heads, the same function: for servers whose kernels know no narrow heads.

vLLM's attention on the CPU knows heads of 32 and more; tiny bases have heads of 8. Zeros are put
between the old dimensions, so that every number that counts stays what it was:

    queries, keys   dimension i of a half goes to m i of the wider half (m = new / old), where the
                    rotary embedding turns by the same angle: theta^(-2 m i / (m d)) = theta^(-2i/d)
    queries         times sqrt(m), which undoes the larger divisor sqrt(m d) of the scores
    values, output  the old dimensions first, zeros after them

With m a power of four even the rounding of the queries stays the same. Adapters are rewritten
alike, so soups of rewritten adapters are rewritten soups.
"""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import write_folder_atomic
from palate.models.adapter import Factor, load_adapter, save_adapter

_HALVED = ("q_proj", "k_proj")  # turned by the rotary embedding, as two halves


@dataclass(frozen=True)
class Heads:
    """How heads are widened.

    Attributes:
        old: Dimensions of a head.
        new: Dimensions of a wider one; a multiple of the old.
    """

    old: int
    new: int

    def __post_init__(self) -> None:
        """Refuse what has no exact rewriting."""
        if self.old < 2 or self.old % 2 or self.new % self.old:
            raise InvalidInputError(
                f"Heads of {self.old} cannot be widened to {self.new}; give a multiple of an even "
                "size."
            )

    @property
    def times(self) -> int:
        """How many times wider."""
        return self.new // self.old

    def places(self, name: str, n_heads: int) -> Tensor:
        """Where each old dimension of all heads goes, for the projection of this name."""
        inside = torch.arange(self.old)
        if name in _HALVED:
            half = self.old // 2
            inside = (inside % half) * self.times + (inside // half) * (self.new // 2)
        return (torch.arange(n_heads)[:, None] * self.new + inside).flatten()

    def rows(self, name: str, matrix: Tensor) -> Tensor:
        """A projection's output rows (of its matrix, or of an adapter's B), spread out."""
        n_heads = matrix.shape[0] // self.old
        wide = matrix.new_zeros(n_heads * self.new, *matrix.shape[1:])
        factor = math.sqrt(self.times) if name == "q_proj" else 1.0
        wide[self.places(name, n_heads)] = matrix * factor
        return wide

    def columns(self, matrix: Tensor) -> Tensor:
        """The output projection's input columns (or an adapter's A), spread out."""
        n_heads = matrix.shape[1] // self.old
        wide = matrix.new_zeros(matrix.shape[0], n_heads * self.new)
        wide[:, self.places("o_proj", n_heads)] = matrix
        return wide


def widen_base(folder: Path, out: Path, *, head: int) -> Heads:
    """The Llama in `folder`, with heads of `head` dimensions, as the new folder `out`.

    Raises:
        InvalidInputError: the new size is no multiple of the old.
        FormatError: it is no plain Llama in one safetensors file.
    """
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    is_plain = config.get("model_type") == "llama" and not config.get("attention_bias")
    if not is_plain or not (folder / "model.safetensors").is_file():
        raise FormatError(
            f"The base {str(folder)!r} is no Llama without attention biases in one "
            "model.safetensors; only those can be widened."
        )
    n_heads = int(config["num_attention_heads"])
    heads = Heads(int(config.get("head_dim") or config["hidden_size"] // n_heads), head)
    wide = {
        name: _widen_matrix(heads, name.removesuffix(".weight"), value)
        for name, value in load_file(folder / "model.safetensors").items()
    }

    def fill(target: Path) -> None:
        for file in folder.iterdir():
            if file.is_file() and file.name not in ("model.safetensors", "config.json"):
                shutil.copyfile(file, target / file.name)
        (target / "config.json").write_text(json.dumps({**config, "head_dim": head}, indent=2))
        save_file(wide, target / "model.safetensors", metadata={"format": "pt"})

    write_folder_atomic(out, fill)
    return heads


def widen_adapters(
    folders: Mapping[str, Path], out: Path, *, heads: Heads, base_path: str
) -> dict[str, Path]:
    """The adapters for the widened base, each as a folder of its name below `out`."""
    found: dict[str, Path] = {}
    for name, folder in folders.items():
        adapter = {
            layer: _widen_factor(heads, layer, factor)
            for layer, factor in load_adapter(folder).items()
        }
        save_adapter(adapter, out / name, base_path=base_path)
        found[name] = out / name
    return found


def _widen_matrix(heads: Heads, layer: str, matrix: Tensor) -> Tensor:
    name = layer.rsplit(".", 1)[-1]
    if name in ("q_proj", "k_proj", "v_proj"):
        return heads.rows(name, matrix)
    return heads.columns(matrix) if name == "o_proj" else matrix


def _widen_factor(heads: Heads, layer: str, factor: Factor) -> Factor:
    name = layer.rsplit(".", 1)[-1]
    if name in ("q_proj", "k_proj", "v_proj"):
        return Factor(factor.down, heads.rows(name, factor.up), factor.scale)
    if name == "o_proj":
        return Factor(heads.columns(factor.down), factor.up, factor.scale)
    return factor
