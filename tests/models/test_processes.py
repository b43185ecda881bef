"""Processes that work together: shares, gathering and sums, on two real ones."""

import os
import subprocess
import sys

import pytest
import torch

from palate.core.errors import InvalidInputError
from palate.models import processes
from palate.models.processes import (
    gathered,
    is_first,
    join_launch,
    n_together,
    own_device,
    own_share,
    sum_gradients,
    summed,
)

SCRIPT = """
import torch
from palate.models.processes import *
from palate.models import processes
join_launch(torch.device("cpu"))
part = own_share(5)
weight = torch.nn.Parameter(torch.tensor(1.0))
(weight * (1.0 + processes.rank())).backward()
sum_gradients([weight])
total = summed(torch.tensor([1.0, 2.0]) * (1 + processes.rank()))
said = [n_together(), is_first(), part.start, part.stop, gathered(list(range(5))[part]),
        weight.grad.item(), total.tolist()]
print("|".join(map(str, said)) + "\\n", end="", flush=True)  # one write: both share the stream
"""


def test_one_process_has_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")  # the variable alone is no launch
    join_launch(torch.device("cpu"))
    assert (n_together(), is_first(), own_share(7)) == (1, True, slice(0, 7))
    assert gathered(["a", "b"]) == ["a", "b"]
    value = torch.tensor(2.0)
    assert summed(value) is value
    weight = torch.nn.Parameter(torch.tensor(3.0))
    (weight * 2).backward()
    sum_gradients([weight])
    assert weight.grad is not None
    assert weight.grad.item() == 2.0


def test_every_process_of_a_launch_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_device("cuda") == "cuda"
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "5")
    assert [own_device(name) for name in ("cuda", "cuda:2", "cpu")] == ["cuda:5", "cuda:2", "cpu"]


@pytest.mark.parametrize(("n", "parts"), [(7, 3), (4, 4), (9, 2)])
def test_shares_are_even_in_order_and_everything(
    n: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "n_together", lambda: parts)
    shares: list[list[int]] = []
    for place in range(parts):
        monkeypatch.setattr(processes, "rank", lambda place=place: place)
        shares.append(list(range(n))[own_share(n)])
    assert [item for share in shares for item in share] == list(range(n))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    with pytest.raises(InvalidInputError, match=f"shared between {parts} processes; start fewer"):
        own_share(parts - 1)


@pytest.mark.slow
def test_two_processes_gather_in_order_and_add_up() -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launch, "--nproc-per-node", "2", "--no-python", sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # gradients of 1 and 2 add up to 3, [1, 2] and [2, 4] to [3, 6]
    assert sorted(done.stdout.splitlines()) == [
        "2|False|2|5|[0, 1, 2, 3, 4]|3.0|[3.0, 6.0]",
        "2|True|0|2|[0, 1, 2, 3, 4]|3.0|[3.0, 6.0]",
    ]
