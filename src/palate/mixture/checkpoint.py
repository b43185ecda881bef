"""The folder of a training run: curves, answers and a checkpoint, so that a run can be resumed.

Random numbers are derived from the seed and the number of the update, so a resumed run goes on as
if it had not been interrupted. Only safetensors and JSON; the checkpoint is replaced as a whole.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from palate.core.errors import FormatError
from palate.core.files import (
    append_jsonl,
    read_jsonl,
    read_versioned,
    write_folder_atomic,
    write_jsonl,
    write_versioned,
)
from palate.mixture.answers import Answers
from palate.models.processes import is_first

KIND = "palate.controller-checkpoint"
SCHEMA_VERSION = 1
CURVES = "curves.jsonl"
_CHECKPOINT, _ANSWERS = "checkpoint", "answers"
_STATE, _ABOUT = "state.safetensors", "checkpoint.json"


class TrainingFolder:
    """What a run has done so far; of several processes the first one writes."""

    def __init__(
        self, folder: Path, controller: nn.Module, optimizer: torch.optim.Optimizer, *, key: str
    ) -> None:
        """Put controller and optimizer into the state of the folder's checkpoint, if it has one.

        `key` is a hash of everything that determines the run; the folder may be missing.

        Raises:
            FormatError: the checkpoint belongs to another run.
        """
        self._folder, self._key = folder, key
        self._controller, self._optimizer = controller, optimizer
        self.n_done = self._load()
        self.curves = self._read_curves()
        self._answers: list[Answers] = []

    def with_earlier(self, answers: Answers, *, update: int) -> Answers:
        """The answers of all updates so far; `answers` are stored as those of this update."""
        if not self._answers:
            device = answers.ids.device
            self._answers = [Answers.load(self._part(u), device=device) for u in range(update)]
        if is_first():
            self._part(update).parent.mkdir(parents=True, exist_ok=True)
            answers.save(self._part(update))
        self._answers.append(answers)
        return Answers.joined(self._answers)

    def record(self, row: dict[str, Any], *, is_due: bool) -> None:
        """Append an update's row to the curves, and replace the checkpoint if it is due."""
        self.curves.append(row)
        if is_first():
            append_jsonl(self._folder / CURVES, [row])
            if is_due:
                write_folder_atomic(self._folder / _CHECKPOINT, self._fill)

    def _part(self, update: int) -> Path:
        return self._folder / _ANSWERS / f"{update:04d}.safetensors"

    def _read_curves(self) -> list[dict[str, Any]]:
        """The rows of the updates that the checkpoint has; later ones are cut off the file."""
        path = self._folder / CURVES
        if not path.is_file():
            return []
        rows = read_jsonl(path, what="curves file", is_torn_end_dropped=True)
        rows = [row for row in rows if row["update"] <= self.n_done]
        if is_first():
            write_jsonl(path, rows)
        return rows

    def _fill(self, target: Path) -> None:
        tensors = {f"controller.{name}": t for name, t in self._controller.state_dict().items()}
        for place, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{place}.{name}": value for name, value in state.items()}
        plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        save_file(plain, target / _STATE)
        about = {"n_updates": self.curves[-1]["update"], "key": self._key}
        write_versioned(target / _ABOUT, kind=KIND, version=SCHEMA_VERSION, content=about)

    def _load(self) -> int:
        folder = self._folder / _CHECKPOINT
        if not (folder / _ABOUT).is_file():
            return 0
        about = read_versioned(folder / _ABOUT, kind=KIND, version=SCHEMA_VERSION)
        if about["key"] != self._key:
            raise FormatError(
                f"The checkpoint {str(folder)!r} belongs to a run with other settings or data (key "
                f"{about['key'][:12]}, not {self._key[:12]}); remove it or use another folder."
            )
        tensors = load_file(folder / _STATE)
        self._controller.load_state_dict(_with_prefix(tensors, "controller."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _with_prefix(tensors, "optimizer.").items():
            place, _, key_name = name.partition(".")
            state.setdefault(int(place), {})[key_name] = value
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": state})
        return int(about["n_updates"])


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
