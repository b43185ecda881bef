"""Ray, started or joined."""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from palate.core.errors import InvalidInputError, MissingExtraError

NAMESPACE = "palate"


def require_ray() -> None:
    """Raise `MissingExtraError` when Ray is not installed."""
    if find_spec("ray") is None:
        raise MissingExtraError("Several workers or replicas need Ray; install palate[scale].")


def start_ray(*, n_cpus: int, address: str | None) -> Any:
    """Ray, connected; usage statistics are off unless the environment turns them on.

    Without an address it is a cluster of so many CPUs on this machine.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray: Any = import_module("ray")
    local: dict[str, Any] = {"num_cpus": n_cpus, "include_dashboard": False}
    ray.init(
        address=address,
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level="error",
        **({} if address else local),
    )
    return ray


def gpus_of(device: str, *, n: int, each: float, address: str | None, ray: Any) -> float:
    """GPUs that one of `n` processes requests from Ray; 0 on other devices.

    A running cluster may still grow. One that was started here will not, and Ray would wait for
    more GPUs without a word.

    Raises:
        InvalidInputError: the device names a GPU that Ray would not choose, or there are too few.
    """
    if device.startswith("cuda:"):
        raise InvalidInputError(
            f"Ray chooses each process's GPU, which cannot be {device!r} for all; give the device "
            "cuda, and choose GPUs with CUDA_VISIBLE_DEVICES."
        )
    if device != "cuda":
        return 0.0
    if address is None:
        n_here = int(ray.cluster_resources().get("GPU", 0))
        most = n_here // each if each >= 1 else n_here * (1 // each)  # a share lies on one GPU
        if most < n:
            raise InvalidInputError(
                f"{n} processes want {each:g} of a GPU each, and Ray sees {n_here} GPUs; start "
                "fewer, or give each less."
            )
    return each
