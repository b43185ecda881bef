"""One expert of a library, trained by several processes under `accelerate launch`.

Every process reads the library's scored rollouts and trains on its share of each batch; gradients
are averaged by torch (gloo on CPUs, NCCL on GPUs), so the run is that of one process up to rounding
of sums. The first process writes the adapter and the losses. Different experts need no such run:
they are independent jobs, and several can be trained at once.

With FSDP (version 2) parameters, gradients and the optimizer's state are sharded, and the adapter
is put together before it is written. accelerate shards nothing on CPUs, which is refused.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from palate.build.run_file import stored_run
from palate.core.errors import InvalidInputError
from palate.core.files import write_folder_atomic, write_json
from palate.library.folder import LibraryFolder
from palate.models.load import load_base
from palate.models.processes import (
    is_first,
    join_launch,
    n_launched,
    n_together,
    own_device,
    summed,
)
from palate.training.anchors import Anchor
from palate.training.job import TrainSettings
from palate.training.pair_trainer import whole_parameters
from palate.training.rollouts import read_rollouts
from palate.training.save import fill_expert_folder
from palate.training.train import rollout_data, train_expert

LOSSES = "losses.json"


@dataclass(frozen=True)
class Trained:
    """Result of one run."""

    folder: Path  # the adapter
    losses: tuple[float, ...]  # loss of every step over the whole batch
    n_processes: int  # processes that trained together
    is_first: bool  # whether this process wrote the files
    is_sharded: bool = False  # whether every process held only a part of the parameters

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        content = {**vars(self), "folder": str(self.folder), "losses": list(self.losses)}
        del content["is_first"]
        return content


def train_anchor(
    folder: Path,
    name: str,
    *,
    out: Path,
    max_steps: int | None = None,
    gradient_accumulation_steps: int | None = None,
) -> Trained:
    """Train the library's expert of this name anew, into the folder `out`.

    The library is one that `palate build` wrote, with base, rollouts and settings; the name an
    expert's or an objective's. More passes of a step make no more pairs, but another order.

    Raises:
        InvalidInputError: FSDP is asked for and not in force, the library lacks rollouts or the
            anchor, `out` exists, or the batch cannot be split between the processes.
    """
    library = LibraryFolder.open(folder)
    if out.exists():
        raise InvalidInputError(f"The folder {str(out)!r} exists; give a new one.")
    settings = stored_run(library.manifest.config)
    job = settings.expert_job(_anchor(library, name))
    if job.training.method not in ("rebel", "dpo"):
        raise InvalidInputError(
            f"The library's method is {job.training.method!r}; only rebel and dpo are trained "
            "from its rollouts alone."
        )
    training = _split(
        job.training,
        max_steps=max_steps or job.training.max_steps,
        n_passes=gradient_accumulation_steps or job.training.gradient_accumulation_steps,
    )
    job = replace(job, training=training)
    base = load_base(
        settings.model_name_or_path,
        revision=settings.revision,
        dtype=settings.dtype,
        device=own_device(settings.device),
    )
    join_launch(base.device)
    rollouts = read_rollouts(library.rollouts_path, objectives=library.manifest.objective_names)
    passes: list[Tensor] = []
    model = train_expert(base, job, rollout_data(base, rollouts), on_loss=passes.append)
    n_passes = training.gradient_accumulation_steps
    # `[steps]`: the mean over a step's passes and over all processes' shares of them
    mean = summed(torch.stack(passes).double()) / n_together()
    losses = mean.view(-1, n_passes).mean(dim=1)
    parameters = whole_parameters(model)
    trained = Trained(out, tuple(losses.tolist()), n_together(), is_first(), parameters is not None)
    if trained.is_first:
        card = f"# {name}\n\nTrained by {trained.n_processes} process(es) together.\n"
        named = {"base_path": library.manifest.base.path, "dtype": job.adapter.dtype}

        def fill(to: Path) -> None:
            fill_expert_folder(to, model=model, card=card, parameters=parameters, **named)
            write_json(to / LOSSES, trained.to_json())

        write_folder_atomic(out, fill)
    return trained


def _split(training: TrainSettings, *, max_steps: int, n_passes: int) -> TrainSettings:
    """The training with the library's whole batch, split between the passes of all processes."""
    whole = training.per_device_train_batch_size * training.gradient_accumulation_steps
    n_parts = n_passes * n_launched()
    if whole % n_parts:
        raise InvalidInputError(
            f"The library's batch of {whole} pairs cannot be split into {n_passes} passes of "
            f"{n_launched()} processes; give other --gradient-accumulation-steps."
        )
    changes = {
        "max_steps": max_steps,
        "per_device_train_batch_size": whole // n_parts,
        "gradient_accumulation_steps": n_passes,
    }
    return training.model_copy(update=changes)


def _anchor(library: LibraryFolder, name: str) -> Anchor:
    manifest = library.manifest
    for record in manifest.experts:
        if record.anchor.name == name:
            return record.anchor
    names = manifest.objective_names
    if name not in names:
        raise InvalidInputError(
            f"The library has no expert or objective {name!r}; it has "
            f"{', '.join((*manifest.expert_names, *names))}."
        )
    return Anchor(name, names, tuple(float(other == name) for other in names))
