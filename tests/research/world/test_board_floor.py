"""A safety floor on the small world: a file of its own, so that it runs beside the board's."""

from dataclasses import replace

import pytest

from research.world.board import SAFETY_METHODS, Board, floor_of


@pytest.mark.study
@pytest.mark.slow
def test_the_floor_lowers_the_share_of_every_method_of_the_world(tmp_path, monkeypatch):
    # the world has no harm: the friendly tone stands in for harmlessness
    monkeypatch.setattr("research.world.board.QUICK_STEPS", 25)
    study = floor_of(replace(Board(tmp_path).quick(), n_prompts=3), "friendly")
    assert {row.method for row in study.rows} == set(SAFETY_METHODS)
    for row in study.rows:
        assert row.with_floor.estimate < row.without.estimate, row.method
        assert row.change.interval.estimate < 0
    assert "friendly" in (tmp_path / "floor.md").read_text()
