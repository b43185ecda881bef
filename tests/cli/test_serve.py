"""`palate serve`, in one process and as replicas: which options belong together."""

import sys
from pathlib import Path
from typing import Any

import pytest

from palate.cli import app as program

VLLM = ("--engine", "vllm", "--url", "http://x/v1")
WRONG = {
    "an address without its engine": (("--url", "http://x/v1"), "belong to --engine vllm"),
    "a setting without its engine": (("--engine-set", "top_k=3"), "than local; name one"),
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
    "replicas": (
        *("serve", "--replicas", "2"),
        *("--database", "postgresql://nobody@127.0.0.1:1/none"),
    ),
}


def refusal(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> str:
    monkeypatch.setattr(sys, "argv", ["palate", *words])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 2
    refused = capsys.readouterr().err
    assert refused.count("\n") == 1
    return refused


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
    words = (*COMMANDS["replicas"], str(tmp_path), *VLLM, "--replicas")
    refused = refusal((*words, "3", "--engine-set", "n_processes=2"), monkeypatch, capsys)
    assert "n_processes is 2, but 3 replicas use the vllm" in refused
    refused = refusal((*words, "9"), monkeypatch, capsys)
    assert "max_adapters is 8 for 9 processes" in refused


def test_every_replica_uses_the_vllm_with_its_share_and_paths_that_hold_anywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: dict[str, Any] = {}

    def serve_replicas(job: Any, **options: Any) -> None:
        given.update(options, job=job)

    monkeypatch.setattr("palate.serve.replicas.serve_replicas", serve_replicas)
    words = (*COMMANDS["replicas"], str(tmp_path), *VLLM, "--replicas", "3", "--no-rates")
    monkeypatch.setattr(sys, "argv", ["palate", *words, "--engine-set", "pools=server"])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert not ended.value.code
    use = given["job"].engine_of.__self__.settings
    assert (use.n_processes, use.pools, use.is_rated) == (3, "server", False)
    assert use.adapters_folder.is_absolute()
    assert given["n_replicas"] == 3


def test_options_of_replicas_need_replicas(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    for option in (("--gpus", "0.5"), ("--address", "auto")):
        refused = refusal(("serve", str(tmp_path), *option), monkeypatch, capsys)
        assert "belong to --replicas N" in refused
