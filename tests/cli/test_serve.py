"""`palate serve` and `palate scale serve`: which options belong together."""

import inspect
import sys
from pathlib import Path
from typing import Any

import pytest

from palate.cli import app as program
from palate.cli import scale
from palate.cli.serve import serve
from palate.engine.vllm.wire import VllmSettings

VLLM = ("--engine", "vllm", "--url", "http://x/v1")
WRONG = {
    "an address without its engine": (("--url", "http://x/v1"), "belong to --engine vllm"),
    "a setting without its engine": (("--engine-set", "top_k=3"), "belong to --engine vllm"),
    "an engine without its address": (("--engine", "vllm"), "give --url"),
    "an unknown setting": ((*VLLM, "--engine-set", "topk=3"), "topk"),
    "an empty folder of adapters": ((*VLLM, "--adapters", "."), "holds no adapters"),
    "more processes than adapters": (
        (*VLLM, "--engine-set", "n_processes=9"),
        "max_adapters is 8 for 9 processes",
    ),
}
COMMANDS = {
    "serve": ("serve",),
    "scale serve": ("scale", "serve", "--database", "postgresql://nobody@127.0.0.1:1/none"),
}


def refusal(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> str:
    monkeypatch.setattr(sys, "argv", ["palate", *words])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 2
    found = capsys.readouterr().err
    assert found.count("\n") == 1
    return found


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
@pytest.mark.parametrize(("words", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_options_that_do_not_fit_are_refused(
    command: tuple[str, ...],
    words: tuple[str, ...],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in refusal((*command, str(tmp_path), *words), monkeypatch, capsys)


def test_replicas_that_are_not_counted_or_have_no_share_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    words = (*COMMANDS["scale serve"], str(tmp_path), *VLLM, "--replicas")
    found = refusal((*words, "3", "--engine-set", "n_processes=2"), monkeypatch, capsys)
    assert "n_processes is 2, but 3 replicas use the vLLM" in found
    found = refusal((*words, "9"), monkeypatch, capsys)
    assert "max_adapters is 8 for 9 processes" in found


def test_every_replica_uses_the_vllm_with_its_share_and_paths_that_hold_anywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: dict[str, Any] = {}

    def answers(use: VllmSettings, **options: Any) -> str:
        told.update(options, use=use)
        return "engine"

    def serve_replicas(job: Any, **options: Any) -> None:
        told.update(options, job=job)

    monkeypatch.setattr("palate.serve.vllm_answers.answers_from", answers)
    monkeypatch.setattr("palate.serve.replicas.serve_replicas", serve_replicas)
    words = (*COMMANDS["scale serve"], str(tmp_path), *VLLM, "--replicas", "3", "--no-rates")
    monkeypatch.setattr(sys, "argv", ["palate", *words, "--engine-set", "pools=server"])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert not ended.value.code
    assert (told["use"].n_processes, told["use"].pools, told["is_rated"]) == (3, "server", False)
    assert (told["job"].engine_of, told["n_replicas"]) == ("engine", 3)


def test_whatever_one_server_can_be_told_replicas_can_be_told_too() -> None:
    one, many = (inspect.signature(command).parameters for command in (serve, scale.serve))
    for name in one.keys() - {"database"}:  # which replicas must share, and so must be given
        assert many[name] == one[name].replace(kind=many[name].kind), name
    assert many.keys() - one.keys() == {"replicas", "address", "gpus"}
