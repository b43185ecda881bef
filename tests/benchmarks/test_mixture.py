"""The mixture's race: the gate compares with dense experts, and the race has all contestants."""

from benchmarks.mixture import MixtureBenchSettings, bench_mixture

TINY = MixtureBenchSettings(
    hidden=64,
    intermediate=96,
    n_layers=2,
    vocab=60,
    n_experts=3,
    rank=4,
    context_tokens=6,
    gate_tokens=10,
    n_repeats=2,
)


def test_the_gate_is_met_and_every_contestant_is_timed() -> None:
    found = bench_mixture(TINY).to_json()
    assert 0 <= found["gate"]["largest_difference"] <= found["gate"]["limit"]
    ratios = found["phases"]["decode"]["times_faster_than"]
    assert len(ratios) == 5
    assert 0 < found["head_gate"]["largest_difference"] <= found["head_gate"]["limit"]
    assert found["head_experts_step_over_base"] > 0
    assert ratios["rows of the bank"] == 1.0
    assert all(seconds > 0 for seconds in found["phases"]["decode"]["median_seconds"].values())
