"""The example of a reward of one's own: builds a library whose expert it taught."""

import runpy
from pathlib import Path

import pytest

from documents import write_story


def test_the_script_builds_a_library_and_answers_for_the_objective(
    project_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_story(tmp_path)
    monkeypatch.chdir(tmp_path)
    example = runpy.run_path(str(project_root / "examples/own_reward.py"))
    example["main"]("brief.yaml", "out")
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("base: ")
    assert (tmp_path / "out/rewards/brief/function.json").is_file()
