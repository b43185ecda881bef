import pytest

from benchmarks.belief import BeliefBenchSettings, bench_belief

pytest.importorskip("sklearn")


def test_the_bench_holds_its_gates_and_is_faster_in_batches() -> None:
    found = bench_belief(
        BeliefBenchSettings(n_batched=2000, n_refitted=2000, n_alone=3, n_repeats=3)
    )
    assert found["gate"]["batched_refit"] < 1e-3
    assert found["gate"]["belief_of_learner"] < 1e-3
    assert found["gate"]["updates_alone"] > found["gate"]["belief_of_learner"]
    assert found["update"]["times_slower_than_ours"]["scikit-learn partial_fit"] > 20
    assert found["refit"]["times_slower_than_ours"]["scipy L-BFGS"] > 2
    assert found["many"]["n_users"] == 2000
