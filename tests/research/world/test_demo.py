"""The demo on the shipped base with few steps: what it writes and what it says."""

import json
from pathlib import Path

import pytest

from palate.core.errors import InvalidInputError
from research.world import demo, demo_story
from research.world.demo import DemoSettings, run_demo, wanted_by
from research.world.demo_page import render_demo_page
from research.world.objectives import OBJECTIVE_NAMES, USERS
from research.world.settings import Annotation, world_run


def small_run(folder: Path, *, seed: int):
    annotation = Annotation(n_prompts=12, n_completions=4, n_pairs=60)
    run = world_run(folder, seed=seed, annotation=annotation)
    return run.model_copy(
        update={
            "training": run.training.model_copy(update={"max_steps": 2}),
            "calibration": run.calibration.model_copy(update={"n_prompts": 8, "max_points": 6}),
        }
    )


@pytest.mark.slow
def test_the_demo_writes_a_library_and_a_page_that_names_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "world_run", small_run)
    monkeypatch.setattr(demo_story, "N_PRICED", 8)
    report = run_demo(DemoSettings(tmp_path, n_prompts=2))
    assert [row.name for row in report.rows] == [
        "base",
        *OBJECTIVE_NAMES,
        *(user.name for user in USERS),
    ]
    page = (tmp_path / "report.html").read_text()
    assert page == render_demo_page(report)
    assert all(user.name in page for user in USERS)
    assert "<svg" in page
    assert 'src="http' not in page  # nothing is fetched
    assert 'href="http' not in page
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["n_trained"] == 6
    sizes = [len(members) for members in written["portfolio"]["members_by_size"]]
    assert sizes == list(range(1, 9))
    bounds = zip(
        written["portfolio"]["estimated_by_size"],
        written["portfolio"]["certified_by_size"],
        strict=True,
    )
    assert all(0.0 <= estimated <= certified for estimated, certified in bounds)
    assert list(written["learned"]["gold_utility"]) == ["0", "3", "10", "30"]
    said = "".join(token["text"] for token in written["mixture"]["tokens"])
    assert len(said) > 20
    again = run_demo(DemoSettings(tmp_path, n_prompts=2))
    assert again.n_trained == 0
    assert again.rows == report.rows
    assert again.learned == report.learned  # everything has its seed


def test_what_is_wanted_is_the_experts_anchor_or_the_users_three_objectives() -> None:
    assert wanted_by("friendly") == ("friendly",)
    assert wanted_by(USERS[0].name) == tuple(o.name for o in USERS[0].objectives)
    assert wanted_by("base") == ()


def test_numbers_of_prompts_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot judge 1 prompts"):
        run_demo(DemoSettings(tmp_path, n_prompts=1))
    assert list(tmp_path.iterdir()) == []
