"""Processes that work together under `accelerate launch`: who does which share, and the sum of it.

accelerate starts the processes and says how they talk (gloo on CPUs, NCCL on GPUs). Each takes its
share of a list that all of them know, and all get everybody's results in the list's order, so the
work is that of one process up to rounding. Without a launch there is one process, which has it all.
"""

import atexit
import os
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from torch import Tensor, distributed

from palate.core.errors import InvalidInputError

Item = TypeVar("Item")


def join_launch(device: torch.device) -> None:
    """Take the place that `accelerate launch` gave this process; nothing without a launch."""
    if n_launched() == 1:
        return
    if not distributed.is_initialized():
        PartialState(cpu=device.type == "cpu")
    atexit.register(_leave_launch)


def _leave_launch() -> None:
    """Stop the threads that talk: a process that ends while gloo's run is aborted at random."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def own_device(name: str) -> str:
    """The device of this process: of `cuda` under a launch its own GPU, for all else the name."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if name == "cuda" and n_launched() > 1 else name


def n_launched() -> int:
    """Processes that `accelerate launch` started together, joined or not; one without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def n_together() -> int:
    """Processes that work together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """This one's place among them, from zero."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this process writes files."""
    return rank() == 0


def own_share(n: int) -> slice:
    """This process's of `n` things, as even as can be; InvalidInputError where they are too few."""
    parts, place = n_together(), rank()
    if n < parts:
        raise InvalidInputError(
            f"{n} pieces of work cannot be shared between {parts} processes; start fewer."
        )
    return slice(n * place // parts, n * (place + 1) // parts)


def gathered(items: Sequence[Item]) -> list[Item]:
    """Everybody's items, in the order of the processes."""
    if n_together() == 1:
        return list(items)
    parts: list[Sequence[Item]] = [()] * n_together()
    distributed.all_gather_object(parts, list(items))
    return [item for part in parts for item in part]


def summed(value: Tensor) -> Tensor:
    """The sum of everybody's tensors, all of one shape `[...]`."""
    if n_together() > 1:
        value = value.clone()
        distributed.all_reduce(value)
    return value


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by the sum of everybody's."""
    if n_together() == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            distributed.all_reduce(parameter.grad)
