"""Bad input: one sentence on standard error, exit code 2, nothing half-written."""

import json
import sys
from pathlib import Path

import pytest

from fakes import save_tiny_llama
from palate.cli import app as program

PAIR = {"prompt": "Why?", "chosen": "Because.", "rejected": "No.", "objective": "kind"}
RUN = """
model_name_or_path: {base}
prompts: {prompts}
objectives:
  - name: kind
    reward: {{{reward}}}
"""


@pytest.fixture
def palate(monkeypatch, capsys):
    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["palate", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            program.main()
        return ended.value.code, capsys.readouterr().err

    return run


def require_one_sentence(found: tuple[int, str], words: str) -> None:
    code, err = found
    assert code == 2, err
    assert err.startswith("palate: ")
    assert words in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--preference", "kind=0.5,short=0.6"], "sums to 1.1"),
        (["--preference", "kind=1.2,short=-0.2"], "negative share"),
        (["--preference", "kind=nan"], "not of the form name=number"),
        (["--preference", "rude=1"], "unknown objective 'rude'"),
        (["--coefficients", "rude=1"], "unknown expert 'rude'"),
        (["--preference", "kind=1", "--method", "stew"], "'stew' is unknown"),
        (["--preference", "kind=1", "--temperature", "-1"], "use a number of 0 or more"),
        (["--preference", "kind=1", "--top-p", "nan"], "use a number above 0 and at most 1"),
        (["--preference", "kind=1", "--max-tokens", "0"], "max_tokens=0 is out of range; use 1 or"),
        (["--preference", "kind=1", "-n", "0"], "at least one"),
        (["--method", "soup"], "Nothing is known of the user"),
    ],
)
def test_generate_refuses(palate, tiny_library: Path, options: list[str], words: str) -> None:
    require_one_sentence(palate("generate", tiny_library, "--prompt", "Why?", *options), words)


def test_a_wrong_base_is_refused_naming_both(palate, tiny_library: Path, tmp_path: Path) -> None:
    other = save_tiny_llama(tmp_path / "other", seed=9)
    words = ["generate", tiny_library, "--prompt", "Why?", "-p", "kind=1", "--base", other]
    require_one_sentence(palate(*words), "belongs to the base")


def test_a_missing_library_and_a_missing_file_are_named(
    palate, tiny_library: Path, tmp_path: Path
) -> None:
    require_one_sentence(palate("generate", tmp_path, "--prompt", "x", "-p", "a=1"), "library.json")
    missing = tmp_path / "none.jsonl"
    require_one_sentence(palate("score", tiny_library, missing, "-p", "kind=1"), "does not exist")


def test_a_path_that_cannot_be_written_is_named(palate, tiny_library: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    out = tmp_path / "file" / "adapter"
    words = ["soup", "merge", tiny_library, "-c", "kind=1", "--out", out]
    require_one_sentence(palate(*words), "cannot be read or written (File exists)")


def test_an_argument_that_is_no_text_is_refused(palate, tiny_library: Path) -> None:
    """As the shell passes on bytes that are not UTF-8."""
    words = ["generate", tiny_library, "--prompt", "a\udcff", "-p", "kind=1"]
    require_one_sentence(palate(*words), "not UTF-8 text")


def test_a_merge_with_an_unknown_expert_writes_nothing(
    palate, tiny_library: Path, tmp_path: Path
) -> None:
    out = tmp_path / "adapter"
    found = palate("soup", "merge", tiny_library, "-c", "rude=1", "--out", out)
    require_one_sentence(found, "unknown expert 'rude'")
    assert not out.exists()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "empty"),
        ([{**PAIR, "rejected": "Because."}], "chosen == rejected"),
        ([{"prompt": "Why?", "chosen": "Because."}], "rejected"),
        (['{"prompt": "Why?", "chosen": NaN, "rejected": "No."}'], "not valid JSON"),
    ],
)
def test_pairs_that_say_nothing_are_refused(
    palate, tmp_path: Path, rows: list[object], words: str
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    pairs.write_text("".join(line + "\n" for line in lines))
    out = tmp_path / "reward"
    found = palate("rewards", "train", pairs, "--validation", pairs, "--out", out)
    require_one_sentence(found, words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("reward", "overrides", "words"),
    [
        ("folder: nowhere", [], "nowhere"),
        ("folder: nowhere, colour: red", [], "colour"),
        ("pairs: none.jsonl", [], "none.jsonl"),
        ("rule: {kind: smell}", [], "smell"),
        ("rule: {kind: length}", ["training.beta=-1"], "training.beta"),
        ("rule: {kind: length}", ["training.bata=1"], "'training.bata'"),
    ],
)
def test_build_refuses(
    palate, tiny_library: Path, tmp_path: Path, reward: str, overrides: list[str], words: str
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Why?"}\n')
    run_file = tmp_path / "run.yaml"
    base = tiny_library.parent / "base"
    run_file.write_text(RUN.format(base=base, prompts=prompts, reward=reward))
    options = [word for override in overrides for word in ("--set", override)]
    options += ["--set", "rollouts.max_completion_length=4", "--set", "rollouts.num_generations=2"]
    found = palate("build", run_file, "--out", tmp_path / "library", *options)
    require_one_sentence(found, words)
