"""The race against transformers on a tiny library: the gate holds, all contestants are timed."""

from pathlib import Path

import pytest

from benchmarks import generate
from benchmarks.generate import GenerateBenchSettings, bench_generate
from palate.core.errors import CheckFailedError


def test_every_contestant_is_timed(tiny_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "STREAM_BYTES", 2**16)
    settings = GenerateBenchSettings(
        library=str(tiny_library), dtype="float32", n_sequences=[1, 2], max_tokens=3, n_repeats=1
    )
    result = bench_generate(settings)
    assert set(result["speeds"]) == {1, 2}
    for speeds in result["speeds"].values():
        assert set(speeds) == {"palate", "palate, soup", "transformers"}
        assert all(speed["median"] > 0 for speed in speeds.values())
    assert result["floor"]["bytes"] > 0


def test_other_tokens_than_transformers_end_the_race(
    tiny_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = generate.torch.full((1, 64), 999)
    monkeypatch.setattr(generate, "_generate", lambda *_args, **_options: wrong)
    settings = GenerateBenchSettings(library=str(tiny_library), dtype="float32")
    with pytest.raises(CheckFailedError, match="are not transformers'"):
        bench_generate(settings)
