"""Many users through one session's queue, on a tiny library."""

from pathlib import Path

from benchmarks.users import UsersBenchSettings, bench_users


def test_every_user_is_answered_in_order(tiny_library: Path) -> None:
    settings = UsersBenchSettings(
        library=str(tiny_library), dtype="float32", n_users=150, n_rounds=3, max_tokens=2
    )
    result = bench_users(settings)
    assert result["n_requests"] == 450
    assert result["n_failed"] == 0
    assert result["most_overtaken"] <= 128
    assert result["waiting_bytes_per_user"] > 0
    assert len(result["mebibytes_after"]) == 3
