"""Checkpoints of a training run: parameters, optimizer and the number of updates done.

Random numbers are derived from the seed and the number of the update, so a resumed run goes on as
if it had not been interrupted. Only safetensors and JSON; the folder is replaced as a whole.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from palate.core.errors import FormatError
from palate.core.files import read_versioned, write_folder_atomic, write_versioned

KIND = "palate.controller-checkpoint"
SCHEMA_VERSION = 1
_STATE, _ABOUT = "state.safetensors", "checkpoint.json"


def save_checkpoint(
    folder: Path,
    controller: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    n_updates: int,
    key: str,
) -> None:
    """Write the state after so many updates; a checkpoint that was there is replaced.

    Args:
        folder: Made anew.
        controller: Its parameters.
        optimizer: Its moments.
        n_updates: Done.
        key: Hash of everything that determines the run.
    """
    tensors = {f"controller.{name}": value for name, value in controller.state_dict().items()}
    for place, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{place}.{name}": value for name, value in state.items()}

    def fill(target: Path) -> None:
        save_file({name: _plain(value) for name, value in tensors.items()}, target / _STATE)
        about = {"n_updates": n_updates, "key": key}
        write_versioned(target / _ABOUT, kind=KIND, version=SCHEMA_VERSION, content=about)

    write_folder_atomic(folder, fill)


def load_checkpoint(
    folder: Path, controller: nn.Module, optimizer: torch.optim.Optimizer, *, key: str
) -> int:
    """Put controller and optimizer into the state of the checkpoint; updates done, 0 without one.

    Raises:
        FormatError: the checkpoint belongs to another run.
    """
    if not (folder / _ABOUT).is_file():
        return 0
    about = read_versioned(folder / _ABOUT, kind=KIND, version=SCHEMA_VERSION)
    if about["key"] != key:
        raise FormatError(
            f"The checkpoint {str(folder)!r} belongs to a run with other settings or data (key "
            f"{about['key'][:12]}, not {key[:12]}); remove it or use another folder."
        )
    tensors = load_file(folder / _STATE)
    controller.load_state_dict(_with_prefix(tensors, "controller."))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _with_prefix(tensors, "optimizer.").items():
        place, _, key_name = name.partition(".")
        state.setdefault(int(place), {})[key_name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return int(about["n_updates"])


def _plain(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous().clone()


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
