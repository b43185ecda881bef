import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from palate.cli.app import app, main
from rewards.test_job import write_answers, write_pairs


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for part, seed in (("train", 1), ("validation", 2)):
        write_pairs(folder / f"friendly.{part}.jsonl", seed=seed)
    write_answers(folder / "answers.jsonl")
    trained = run(*train_words(folder, folder / "reward"), "--json")
    (folder / "printed.json").write_text(trained)
    return folder


def train_words(files: Path, out: Path) -> list[str]:
    return [
        "train",
        str(files / "friendly.train.jsonl"),
        "--validation",
        str(files / "friendly.validation.jsonl"),
        "--out",
        str(out),
        "--calibrate",
        str(files / "answers.jsonl"),
    ]


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["rewards", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def refusal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[object, str]:
    """Exit code and standard error of the program itself."""
    monkeypatch.setattr(sys, "argv", ["palate", "rewards", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code, capsys.readouterr().err


def test_train_prints_one_json_object_with_everything_beside_the_accuracy(files: Path) -> None:
    printed = json.loads((files / "printed.json").read_text())
    held_out = printed["held_out"]
    assert held_out["accuracy"] == {
        "estimate": 1.0,
        "low": pytest.approx(30 / (30 + 1.959964**2), abs=1e-4),
        "high": 1.0,
        "n": 30,
        "n_groups": 30,
        "method": "wilson",
    }
    assert {"longer_wins", "shorter_wins", "length_only"} < set(held_out)
    assert printed["calibration"]["kind"] == "logistic"


def test_train_prints_accuracy_with_interval_and_length_baselines(
    files: Path, tmp_path: Path
) -> None:
    text = run(*train_words(files, tmp_path / "out"))
    for words in ("accuracy: 1 [0.8865, 1]", "longer wins: ", "shorter wins: ", "length only: "):
        assert f"held out: {words}" in text


def test_a_reward_that_may_have_learned_length_is_named(tmp_path: Path) -> None:
    for name, places in (("train", range(30)), ("validation", range(30, 40))):
        rows = [
            {"prompt": f"ask {k}", "chosen": f"yes {k}", "rejected": f"yes and more of it {k}"}
            for k in places
        ]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [str(tmp_path / "train"), "--validation", str(tmp_path / "validation")]
    text = run("train", *words, "--objective", "short", "--out", str(tmp_path / "out"))
    assert "warning: no better than length alone" in text


def test_score_prints_numbers_for_answers_and_accuracy_for_pairs(files: Path) -> None:
    scored = json.loads(run("score", str(files / "reward"), str(files / "answers.jsonl"), "--json"))
    assert len(scored["scores"]) == scored["n"] == 4
    text = run("score", str(files / "reward"), str(files / "answers.jsonl"))
    assert {"objective: friendly", "scale: logistic", "n: 4"} <= set(text.splitlines())
    ranked = run("score", str(files / "reward"), str(files / "friendly.validation.jsonl"))
    assert "longer wins: " in ranked
    assert "accuracy: 1 [0.8865, 1]" in ranked


BAD_PAIRS = {
    "empty": ("", "is empty"),
    "no_rejected": ('{"prompt": "p", "chosen": "c"}\n', "has no 'rejected'"),
    "equal": (
        '{"prompt": "p", "chosen": "c", "rejected": "c", "objective": "o"}\n',
        "chosen == rejected",
    ),
    "nan": ('{"prompt": "p", "chosen": NaN, "rejected": "c"}\n', "Line 1"),
    "text": ("this is no JSON\n", "Line 1"),
}


@pytest.mark.parametrize("case", sorted(BAD_PAIRS))
def test_bad_pairs_are_one_sentence_and_exit_code_two(
    case: str,
    files: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content, sentence = BAD_PAIRS[case]
    bad = tmp_path / "bad.jsonl"
    bad.write_text(content)
    out = tmp_path / "out"
    validation = str(files / "friendly.validation.jsonl")
    code, told = refusal(
        capsys, monkeypatch, "train", str(bad), "--validation", validation, "--out", str(out)
    )
    assert code == 2
    assert sentence in told
    assert "bad.jsonl" in told
    assert len(told.strip().splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--set", "leest_texts=3"], "'leest_texts'"),
        (["--scale", "cubic"], "'scale'"),
        (["--trunk", "./nowhere"], "'./nowhere' does not exist"),
        (["--swap"], "name the opposite objective"),
        (["--group-by", "article"], "has no 'article'"),
    ],
)
def test_bad_options_are_one_sentence_and_exit_code_two(
    words: list[str],
    sentence: str,
    files: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    code, told = refusal(capsys, monkeypatch, *train_words(files, out), *words)
    assert (code, out.exists()) == (2, False)
    assert sentence in told


def test_an_uncalibrated_reward_is_refused_with_exit_code_two(
    files: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = train_words(files, tmp_path / "out")
    run(*words[: words.index("--calibrate")])
    code, told = refusal(
        capsys, monkeypatch, "score", str(tmp_path / "out"), str(files / "answers.jsonl")
    )
    assert code == 2
    assert "'friendly' is not calibrated" in told


def test_a_missing_reward_is_refused_with_exit_code_two(
    files: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = str(tmp_path / "nowhere")
    code, told = refusal(capsys, monkeypatch, "score", missing, str(files / "answers.jsonl"))
    assert code == 2
    assert "does not exist" in told


def test_help_needs_neither_torch_nor_scikit_learn() -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'sklearn', 'transformers', 'trl', 'scipy'):\n"
        "    sys.modules[name] = None\n"
        "from typer.testing import CliRunner\n"
        "from palate.cli.rewards import app\n"
        "done = CliRunner().invoke(app, ['train', '--help'])\n"
        "sys.exit(done.exit_code)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
