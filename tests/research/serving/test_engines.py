"""200 requests of all ways through this process and through a real vLLM.

Needs a running server, which `benchmarks/vllm_engine/README.md` starts:

    PALATE_VLLM_URL      its address, such as http://127.0.0.1:8177/v1
    PALATE_VLLM_WORK     the folder that prepare.py wrote
"""

import os
from pathlib import Path

import numpy as np
import pytest

from palate.engine.vllm.client import VllmSettings
from palate.engine.vllm.rounding import Rounding
from palate.library.library import Library
from research.serving.engines import calibrate, compare_engines, worst_bound
from research.serving.engines_compare import requests_of_all_ways


@pytest.mark.slow
@pytest.mark.skipif(
    "PALATE_VLLM_URL" not in os.environ,
    reason="PALATE_VLLM_URL names no server; benchmarks/vllm_engine/README.md starts one",
)
def test_a_real_vllm_answers_200_requests_as_this_process_does(tmp_path: Path) -> None:
    work = Path(os.environ["PALATE_VLLM_WORK"])
    settings = VllmSettings(
        url=os.environ["PALATE_VLLM_URL"],
        adapters_folder=tmp_path / "adapters",
        top_k=512,
        max_top_k=512,
        max_lora_rank=32,
        max_concurrent=8,
        server_experts=work / "wide/experts",
    )
    found = compare_engines(work / "library", settings, n=200)
    assert found["failures"] == []
    by_way = {row["way"]: row for row in found["ways"]}
    assert sum(row["n"] for row in by_way.values()) == 200
    for method in ("base", "portfolio", "soup", "output-soup", "mixture"):
        assert by_way[method]["n_equal"] + by_way[method]["n_ties"] == by_way[method]["n"], method
    assert by_way["rounded soup"]["largest_bound"] > 0
    assert by_way["rounded soup"]["n_outside"] == 0
    assert found["rounding"]["held_out"]["n_outside"] == 0
    assert found["adapters"]["evictions"] > 0


def test_the_requests_are_of_all_ways_and_the_same_for_the_same_seed() -> None:
    first = requests_of_all_ways(n=200, n_experts=3, max_tokens=8, step=0.05, seed=1)
    again = requests_of_all_ways(n=200, n_experts=3, max_tokens=8, step=0.05, seed=1)
    assert first == again
    ways = [one.method for one in first]
    assert {method: ways.count(method) for method in ways} == {
        "base": 20,
        "portfolio": 50,
        "soup": 50,
        "rounded soup": 40,
        "output-soup": 20,
        "mixture": 20,
    }
    signed = [
        one
        for one in first
        if one.method == "output-soup" and min(one.request.plan.pool.coefficients)
    ]
    assert len(signed) > 0


@pytest.mark.slow
def test_the_bound_of_rounding_holds_on_texts_it_was_not_made_from(tiny_library: Path) -> None:
    found = calibrate(Library.load(tiny_library), step=0.1, seed=0)
    assert found.check.n_tokens > 1000
    assert found.check.n_outside <= 0.01 * found.check.n_tokens
    assert 0 < found.check.largest < found.worst_bound
    assert np.all(np.array(found.rates) > 0)


def test_the_worst_bound_is_that_of_half_a_step_in_every_coefficient() -> None:
    assert worst_bound(Rounding(0.5, np.eye(2), rates=(0.2, 0.6))) == pytest.approx(0.2)
    assert worst_bound(Rounding(0.5, np.eye(2))) == 0.0
