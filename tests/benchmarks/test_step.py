"""The race of steps on a tiny library: every plan is timed, and a prompt joins without a change."""

from pathlib import Path

from benchmarks.step import StepBenchSettings, bench_steps


def test_plans_are_timed_and_a_prompt_joins(tiny_library: Path) -> None:
    settings = StepBenchSettings(
        library=str(tiny_library),
        dtype="float32",
        n_repeats=2,
        n_running=3,
        long_tokens=48,
        chunk_tokens=[0, 16],
    )
    result = bench_steps(settings)
    assert {"base", "one expert", "soup of all"} < set(result["plans"])
    assert result["plans"]["base"]["times_the_base_minimum"] == 1
    for one in result["join"].values():
        assert one["same_answers"] == one["of"] == 3
        assert one["longest_pause_in_steps"] > 0
