"""`palate serve --engine vllm`: what it needs at the start, and a real vLLM behind it."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from research.serving.server_process import FREE, ServerProcess


@pytest.mark.slow
@pytest.mark.skipif(
    "PALATE_VLLM_URL" not in os.environ,
    reason="PALATE_VLLM_URL names no server; benchmarks/vllm_engine/README.md starts one",
)
@pytest.mark.parametrize("pools", ["lists", "server"])
def test_a_server_on_a_real_vllm_gives_the_texts_of_one_in_this_process(
    project_root: Path, pools: str
) -> None:
    command = [sys.executable, str(project_root / "benchmarks/vllm_engine/servers.py")]
    command += [os.environ["PALATE_VLLM_WORK"], os.environ["PALATE_VLLM_URL"], "--n", "36"]
    for setting in ("top_k=512", "max_top_k=512", f"pools={pools}"):
        command += ["--engine-set", setting]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["exact"] == found["equal"] >= 30
    assert found["methods"]["rounded soup"]["largest_rounding_bound"] > 0


@pytest.mark.slow
@pytest.mark.skipif(
    "PALATE_VLLM_PID" not in os.environ,
    reason="PALATE_VLLM_PID names no process of a server that may be killed",
)
def test_a_real_vllm_that_stops_or_is_killed_in_the_middle_of_answers_is_an_error_in_time(
    tmp_path: Path,
) -> None:
    work, victim = Path(os.environ["PALATE_VLLM_WORK"]), int(os.environ["PALATE_VLLM_PID"])
    words = ["serve", "--engine", "vllm", "--url", os.environ["PALATE_VLLM_URL"]]
    words += ["--adapters", str(work / "wide/experts"), "--no-rates"]
    for setting in ("max_lora_rank=32", "pools=server", "timeout_seconds=4", "n_retries=0"):
        words += ["--engine-set", setting]
    words += ["--engine-set", f"adapters_folder={tmp_path}/adapters"]
    server = ServerProcess(work / "library", f"{tmp_path}/users.db", FREE, words=words)
    server.start()
    wanted = (
        {"method": "soup", "coefficients": {"bright": 0.5, "short": 0.25}},
        {"method": "output-soup", "coefficients": {"bright": 0.5, "gentle": 0.5}},
    )
    bodies = [
        {"model": "palate", "prompt": "Once upon a time", "max_tokens": 200, "palate": palate}
        for palate in wanted
    ]
    try:
        for how, waits in ((signal.SIGSTOP, 12.0), (signal.SIGKILL, 5.0)):
            with ThreadPoolExecutor(len(bodies)) as threads:
                asked = [
                    threads.submit(server.call, "POST", "/v1/completions", body) for body in bodies
                ]
                time.sleep(0.7)
                assert not any(one.done() for one in asked)
                os.kill(victim, how)
                started = time.monotonic()
                ends = [one.result() for one in asked]
                assert time.monotonic() - started < waits
            assert [status for status, _ in ends] == [503, 503], ends
            assert all(found["error"]["code"] == "unavailable" for _, found in ends)
            assert server.call("GET", "/ready")[0] == 503
            if how is signal.SIGSTOP:
                os.kill(victim, signal.SIGCONT)
                for body in bodies:
                    server.must("POST", "/v1/completions", {**body, "max_tokens": 4})
                assert server.call("GET", "/ready")[0] == 200
    finally:
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGCONT)
        server.stop()
