"""`python -m benchmarks.harness` without the harness names the extra."""

import runpy
import sys
from pathlib import Path

import pytest


def test_without_the_harness_the_extra_is_named(
    tiny_library: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    for name in ("model", "__main__"):
        monkeypatch.delitem(sys.modules, f"benchmarks.harness.{name}", raising=False)
    words = [str(tiny_library), "--tasks", "x", "--preference", "kind=1"]
    monkeypatch.setattr(sys, "argv", ["harness", *words])
    with pytest.raises(SystemExit) as left:
        runpy.run_module("benchmarks.harness", run_name="__main__")
    assert left.value.code == 2
    assert "palate[harness]" in capsys.readouterr().err
