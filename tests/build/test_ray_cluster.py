"""Which GPUs Ray is asked for, and what it could never give."""

from types import SimpleNamespace

import pytest

from palate.build import ray_cluster as scale_ray
from palate.build.ray_cluster import gpus_of, require_ray
from palate.core.errors import InvalidInputError, MissingExtraError

EIGHT = SimpleNamespace(cluster_resources=lambda: {"CPU": 4.0, "GPU": 8.0})
NONE = SimpleNamespace(cluster_resources=lambda: {"CPU": 4.0})


@pytest.mark.parametrize(
    ("n", "each", "is_enough"),
    [
        (8, 1.0, True),
        (9, 1.0, False),
        (32, 0.25, True),
        (33, 0.25, False),
        (9, 0.6, False),  # 5.4 of 8 GPUs in all, but each has room for only one
        (4, 2.0, True),
        (5, 2.0, False),
    ],
)
def test_a_started_ray_is_asked_for_no_more_than_its_gpus(
    n: int, each: float, *, is_enough: bool
) -> None:
    if is_enough:
        assert gpus_of("cuda", n=n, each=each, address=None, ray=EIGHT) == each
    else:
        with pytest.raises(InvalidInputError, match=f"{n} processes want .* and Ray sees 8 GPUs"):
            gpus_of("cuda", n=n, each=each, address=None, ray=EIGHT)


def test_a_running_cluster_may_grow_and_other_devices_need_no_gpu() -> None:
    assert gpus_of("cuda", n=99, each=1.0, address="auto", ray=NONE) == 1.0
    assert gpus_of("cpu", n=99, each=1.0, address=None, ray=NONE) == 0.0


def test_one_gpu_for_all_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"cannot be 'cuda:1' .* CUDA_VISIBLE_DEVICES"):
        gpus_of("cuda:1", n=2, each=1.0, address=None, ray=EIGHT)


def test_a_missing_ray_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_ray, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"need Ray; install palate\[scale\]"):
        require_ray()
