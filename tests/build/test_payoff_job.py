"""The payoff table in cells: the same in one process and on two Ray workers, digit for digit."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from fakes import save_random_adapter, save_tiny_llama
from palate.build import ray_cluster as scale_ray
from palate.build.builder import open_builder
from palate.build.payoff_job import PayoffJobSettings, measure_payoffs
from palate.build.run_file import RunSettings
from palate.core.errors import InvalidInputError, MissingExtraError
from palate.core.plan import reference_plan
from palate.library.folder import LibraryFolder
from palate.library.policy import Policy
from palate.library.portfolio import open_portfolio
from palate.portfolio.choice import PortfolioRequest, choose
from palate.portfolio.payoff_file import save_payoffs
from palate.portfolio.route import select
from palate.portfolio.slack import LEAST_SLACK
from palate.portfolio.terms import Terms
from palate.training.anchors import objective_anchors

PROMPTS = tuple(f"question {k} of ten" for k in range(10))
JOB = PayoffJobSettings(chunk_prompts=4, max_tokens=10, seed=3)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("payoff")
    base = save_tiny_llama(root / "base")
    (root / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": p}) for p in PROMPTS))
    rule = {"kind": "length", "low": 2, "high": 8}
    settings = RunSettings.model_validate(
        {
            "model_name_or_path": str(base),
            "prompts": str(root / "prompts.jsonl"),
            "objectives": [
                {"name": name, "reward": {"rule": {**rule, "prefer": prefer}}}
                for name, prefer in (("long", "longer"), ("short", "shorter"))
            ],
            "rollouts": {"num_generations": 2, "max_completion_length": 10},
            "adapter": {"r": 2},
            "training": {"max_steps": 1, "per_device_train_batch_size": 4, "learning_rate": 0.05},
        }
    )
    shop = open_builder(settings, out=root / "library")
    for anchor in objective_anchors(("long", "short")):
        shop.make(anchor, title="test")
    save_random_adapter(base, root / "other", seed=1)
    return root / "library"


def test_the_table_has_the_base_and_every_expert_and_repeats_itself(library: Path) -> None:
    first = measure_payoffs(library, PROMPTS, JOB)
    second = measure_payoffs(library, PROMPTS, JOB)
    assert first.payoffs.table.policies == ("base", "long", "short")
    assert np.array_equal(first.measurements.rewards, second.measurements.rewards)
    assert np.array_equal(first.measurements.kl, second.measurements.kl)
    assert first.measurements.rewards.shape == (3, 10, 2)
    assert first.n_cells == 3 * 2  # ten prompts in fours: the last two join the second chunk
    assert np.allclose(first.measurements.kl[0], 0.0, atol=1e-6)  # the base, to itself
    assert first.measurements.kl[1:].max() > 1e-4
    assert [len(rows) for rows in first.answers.values()] == [10, 10, 10]


def test_a_table_whose_members_include_the_base_can_be_served(library: Path) -> None:
    found = measure_payoffs(library, PROMPTS, JOB)
    save_payoffs(library / "payoff.json", found.payoffs)
    for size in (1, 3):  # three: the base is among the members
        record = select(
            library / "payoff.json",
            request=PortfolioRequest(size=size),
            terms=Terms(criterion="additive"),
            out=library / "portfolio.json",
        )
        opened = open_portfolio(LibraryFolder.open(library))
        assert set(opened.policies) == set(record.members)
    assert opened.policies["base"] == Policy("base", "base", None, {})
    place = opened.router.names.index("base")
    assert opened.router.plans[place] == reference_plan(n_experts=2)
    route = opened.router.route(np.array([0.5, 0.5]))
    assert route.loss is None
    assert "nothing is known beyond the listed policies" in opened.reason(route)
    (library / "portfolio.json").unlink()


def test_several_answers_to_each_prompt_tell_the_slacks_of_experts(library: Path) -> None:
    one = measure_payoffs(library, PROMPTS, JOB).payoffs
    assert one.slacks is None
    assert one.table.preferences[1:].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert np.isnan(one.table.preferences[0]).all()  # the base was made for nobody
    found = measure_payoffs(library, PROMPTS, JOB.model_copy(update={"n_answers": 2})).payoffs
    assert found.slacks is not None
    assert np.isnan(found.slacks[0])
    assert np.all(found.slacks[1:] >= LEAST_SLACK)
    certified = choose(
        found, request=PortfolioRequest(size=1), terms=Terms(slack="listed")
    ).certified
    assert certified.certificate.kind == "worst-case"


def test_too_few_prompts_and_a_missing_ray_are_told(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInputError, match=r"3 prompts \(3 different\)"):
        measure_payoffs(library, PROMPTS[:3], JOB)
    monkeypatch.setattr(scale_ray, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match="need Ray"):
        measure_payoffs(library, PROMPTS, JOB.model_copy(update={"workers": 2}))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed; docs/scale.md says how")
def test_two_ray_workers_write_the_file_that_one_process_writes(
    library: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("\n".join(json.dumps({"prompt": p}) for p in PROMPTS))
    for workers in (0, 2):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from palate.cli.app import main; main()",
                *("portfolio", "measure", library, "--prompts", prompts),
                *("--out", tmp_path / f"{workers}.json"),
                *("--set", "chunk_prompts=4", "--set", "max_tokens=10"),
                *("--set", f"workers={workers}"),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
            env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"},
        )
        assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "0.json").read_bytes() == (tmp_path / "2.json").read_bytes()
