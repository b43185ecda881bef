"""`palate serve`: which options belong together."""

import sys
from pathlib import Path

import pytest

from palate.cli import app as program

WRONG = {
    "an address without its engine": (("--url", "http://x/v1"), "belong to --engine vllm"),
    "a setting without its engine": (("--engine-set", "top_k=3"), "belong to --engine vllm"),
    "an engine without its address": (("--engine", "vllm"), "give --url"),
    "an unknown setting": (
        ("--engine", "vllm", "--url", "http://x/v1", "--engine-set", "topk=3"),
        "topk",
    ),
}


@pytest.mark.parametrize(("words", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_options_that_do_not_fit_are_refused(
    words: tuple[str, ...], sentence: str, monkeypatch, capsys, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["palate", "serve", str(tmp_path), *words])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 2
    found = capsys.readouterr().err
    assert sentence in found
    assert found.count("\n") == 1
