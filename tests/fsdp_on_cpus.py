"""The command line with accelerate's own FSDP 2 opened for CPUs, to see the training sharded.

accelerate 1.15 takes FSDP for GPUs and other accelerators only: on CPUs its state says MULTI_CPU,
and FSDP is forgotten. Here it is told that the processes are of the kind MULTI_GPU, with the device
cpu and the backend gloo; everything after that (wrapping, sharding, gathering) is accelerate's and
torch's own.
"""

import os
import warnings

import torch
from accelerate import state
from accelerate.utils import DistributedType
from torch import distributed

os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
distributed.init_process_group("gloo")


def as_if_gpus(
    _self: state.PartialState, cpu: bool = False, dp: bool = False, backend: str | None = None
) -> tuple[str, DistributedType]:
    return "gloo", DistributedType.MULTI_GPU


state.PartialState._prepare_backend = as_if_gpus  # type: ignore[method-assign]

if __name__ == "__main__":
    from palate.cli.app import main

    assert not torch.cuda.is_available()
    warnings.simplefilter("ignore")
    main()
