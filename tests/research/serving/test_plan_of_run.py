"""Run files of real sizes: they load, and the estimates beside them are those of the plan."""

from pathlib import Path

import pytest

from palate.build.run_file import RunSettings
from palate.core.errors import InvalidInputError
from palate.core.settings import load_settings
from research.serving.model_sizes import DEVICES
from research.serving.plan import short
from research.serving.plan_counts import PlanSettings, plan
from research.serving.plan_of_run import settings_of_run

NAMES = ("llama-3.1-8b", "llama-3.2-1b", "qwen3-1.7b", "qwen3-8b", "smollm2-1.7b")


def test_every_run_file_is_listed_here(project_root: Path) -> None:
    found = sorted(path.stem for path in (project_root / "examples/llama").glob("*.yaml"))
    assert found == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_file_loads_and_its_estimates_are_the_plans(name: str, project_root: Path) -> None:
    path = project_root / "examples/llama" / f"{name}.yaml"
    run = load_settings(RunSettings, path)
    assert run.device == "cuda"
    found = plan(settings_of_run(path))
    assert found["settings"]["model"] == name
    assert found["settings"]["n_experts"] == len(run.objectives) == 4
    library, model, one = found["library"], found["model"], found["one_device"]
    assert library["training_bytes"] < DEVICES["h100"].memory_bytes
    cells = (
        f"{short(model['bytes'])}B",
        f"{short(model['bytes_of_an_expert'])}B",
        f"{model['cache_bytes_per_token']:,} B",
        f"{short(library['training_bytes'])}B",
        f"{library['rollout_hours']:.2f}",
        f"{library['expert_hours']:.2f}",
        f"{library['library_hours']:.1f}",
        f"{one['tokens_per_second']:,.0f}",
    )
    row = f"| [{name}]({name}.yaml) | {' | '.join(cells)} |"
    assert row in (project_root / "examples/llama/README.md").read_text()


def test_options_go_over_the_run_file_and_strange_bases_are_refused(
    project_root: Path, tmp_path: Path
) -> None:
    path = project_root / "examples/llama/llama-3.2-1b.yaml"
    found = settings_of_run(path, overrides=["rank=4", "n_steps=7"])
    assert (found.rank, found.n_steps, found.n_prompts) == (4, 7, 2000)
    assert found.accumulate == 8
    assert PlanSettings().accumulate == 16
    strange = tmp_path / "run.yaml"
    strange.write_text(path.read_text().replace("meta-llama/Llama-3.2-1B-Instruct", "mine"))
    with pytest.raises(InvalidInputError, match=r"base 'mine' of .* is not listed"):
        settings_of_run(strange)
