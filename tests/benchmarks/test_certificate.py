import pytest

from benchmarks import certificate as bench
from benchmarks.certificate import CertificateBenchSettings
from palate.core.errors import CheckFailedError

SMALL = CertificateBenchSettings(
    objectives=(2, 4), n_members=5, n_candidates=3000, n_sample=20, n_many=5000,
    many_objectives=3, n_repeats=3,
)  # fmt: skip


def test_corners_and_programs_agree_and_corners_are_faster():
    found = bench.bench_certificate(SMALL).to_json()
    assert found["gate"]["largest_difference"] <= 1e-9
    assert found["too_many_corners"] == "programs"
    assert [(r["n_objectives"], r["candidates"]) for r in found["races"]] == [
        (2, "drawn"), (2, "adverse"), (4, "drawn"), (4, "adverse"),
    ]  # fmt: skip
    for race in [*found["races"], found["many"]]:
        assert race["times_faster"] > 50
        assert race["minimum_seconds"] <= race["median_seconds"]
    assert found["many"]["n_candidates"] == 5000


def test_a_gate_that_does_not_hold_is_a_failed_check(monkeypatch):
    monkeypatch.setattr(bench, "GATE", -1.0)
    with pytest.raises(CheckFailedError, match="differ by"):
        bench.bench_certificate(SMALL)
