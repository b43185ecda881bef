"""The race of reading: the gate compares with plain reading, and every race has two contestants."""

import pytest

from benchmarks import reading as bench
from benchmarks.reading import ReadingBenchSettings, bench_reading
from palate.core.errors import CheckFailedError

TINY = ReadingBenchSettings(
    hidden=64,
    intermediate=96,
    n_layers=2,
    vocab=60,
    n_experts=3,
    rank=4,
    long_tokens=96,
    new_tokens=5,
    short_tokens=6,
    n_users=3,
    n_long_rows=4,
    part_tokens=32,
    n_repeats=2,
)


def test_the_gate_is_met_and_every_contestant_is_timed() -> None:
    found = bench_reading(TINY).to_json()
    assert 0 <= found["gate"]["largest_difference"] <= found["gate"]["limit"]
    assert {name: list(phase["median_seconds"]) for name, phase in found["phases"].items()} == {
        "again": ["known", "read anew"],
        "in parts": ["in parts", "at once"],
        "lengths": ["by length", "all in one pass"],
        "long rows": ["room left", "copied"],
    }
    assert found["phases"]["again"]["times_faster_than"]["known"] == 1.0
    assert found["step_seconds"] > 0


def test_a_difference_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "GATE", -1.0)
    with pytest.raises(CheckFailedError, match="differs by"):
        bench_reading(TINY)
