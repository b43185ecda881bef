"""Several processes on one vLLM: none meets, replaces or evicts what another one loaded."""

import errno
import fcntl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from palate.core.errors import FormatError, InvalidInputError, ProviderError
from palate.core.plan import output_soup_plan, parameter_soup_plan
from palate.core.protocols import Request, SamplingParams
from palate.engine.local import LocalEngine
from palate.engine.vllm import adapters as place_module
from palate.engine.vllm.adapters import share_of, take_place
from palate.engine.vllm.client import VllmSettings
from vllm_stand_in import StandIn

GREEDY = SamplingParams(temperature=0.0, max_tokens=12)
SOUP = Request("A cat", parameter_soup_plan((0.5, -0.3, 0.9)), GREEDY)
STARTED = {"base", "short", "wide", "head"}  # what the server was started with

HOLDER = """
import sys, time
from pathlib import Path
from palate.engine.vllm.adapters import take_place
place = take_place(Path(sys.argv[1]), n_places=1)
print("held", flush=True)
time.sleep(60)
"""


def soups_on(server: StandIn) -> set[str]:
    return set(server.models) - STARTED


@pytest.mark.parametrize("pools", ["lists", "server"])
def test_two_engines_at_work_answer_as_this_process_and_leave_each_others_soups_alone(
    connected, local: LocalEngine, server: StandIn, tmp_path: Path, pools: str
) -> None:
    use = {"max_adapters": 4, "max_concurrent": 4, "n_processes": 2, "pools": pools}
    engines = [connected(adapters_folder=tmp_path / "shared", **use) for _ in range(2)]
    soups = [(0.1 * k, 0.2, 0.0) for k in range(1, 6)]  # more than a share has room for
    plans = [make(c) for c in soups for make in (parameter_soup_plan, output_soup_plan)]
    requests = [Request("A cat", plan, GREEDY) for plan in plans]
    own = [local.generate([request])[0].tokens for request in requests]
    with ThreadPoolExecutor(2) as threads:
        turns = list(threads.map(lambda e: [e.generate(requests) for _ in range(2)], engines))
    for answers in (answers for turn in turns for answers in turn):
        assert [answer.tokens for answer in answers] == own
    assert server.most_loaded <= 4
    assert all(engine.context.cache.n_evictions > 0 for engine in engines)
    engines[0].close()
    assert soups_on(server) == set(engines[1].context.cache.names)
    assert [answer.tokens for answer in engines[1].generate(requests)] == own


def test_one_process_more_than_was_said_is_refused_until_another_one_ends(
    connected, server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place_module, "WAIT_SECONDS", 0.1)
    use = {"adapters_folder": tmp_path / "shared", "n_processes": 2}
    first, _second = (connected(**use) for _ in range(2))
    with pytest.raises(InvalidInputError, match=r"All 2 places on the vLLM .* n_processes"):
        connected(**use)
    first.close()
    connected(**use)
    connected(n_processes=1)  # with a folder of its own


def test_a_server_that_opens_badly_lets_its_place_go(
    connected, server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place_module, "WAIT_SECONDS", 0.1)
    engine = connected(adapters_folder=tmp_path / "shared")
    engine.generate([SOUP])
    engine.context.place.release()  # its soup stays on the server
    server.unload_status = 503
    with pytest.raises(ProviderError, match="status 503"):
        connected(adapters_folder=tmp_path / "shared")
    server.unload_status = 200
    del server.models["wide"]
    with pytest.raises(FormatError, match="'wide'"):
        connected(adapters_folder=tmp_path / "shared")
    take_place(tmp_path / "shared", n_places=1).release()


def test_who_takes_the_place_of_one_that_died_takes_its_soups_off_and_no_others(
    connected, local: LocalEngine, server: StandIn, tmp_path: Path
) -> None:
    use = {"adapters_folder": tmp_path / "shared", "n_processes": 2}
    dead, alive = (connected(**use) for _ in range(2))
    for engine in (dead, alive):
        engine.generate([SOUP])
    left, kept = (engine.context.cache.names[0] for engine in (dead, alive))
    assert left != kept  # one soup, each has it under a name of its own
    dead.context.place.release()  # as the end of its process does
    heir = connected(**use)
    assert heir.context.place.folder == dead.context.place.folder
    assert soups_on(server) == {kept}
    assert heir.generate([SOUP])[0].tokens == local.generate([SOUP])[0].tokens
    assert soups_on(server) == {kept, left}


def test_a_place_is_free_as_soon_as_its_process_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            monkeypatch.setattr(place_module, "WAIT_SECONDS", 0.1)
            with pytest.raises(InvalidInputError, match="All 1 places"):
                take_place(tmp_path, n_places=1)
            monkeypatch.setattr(place_module, "WAIT_SECONDS", 10.0)
            with ThreadPoolExecutor(1) as thread:
                waiting = thread.submit(take_place, tmp_path, n_places=1)
                time.sleep(0.3)
                assert not waiting.done()
                holder.kill()
                waiting.result(timeout=5.0).release()
        finally:
            holder.kill()


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(InvalidInputError, match=r"locks no files \(No locks available\)"):
        take_place(tmp_path, n_places=1)


def test_all_processes_together_have_what_was_set_and_less_than_one_each_is_refused() -> None:
    settings = VllmSettings(url="http://x/v1", n_processes=3, max_adapters=8, max_concurrent=32)
    share = share_of(settings)
    assert (share.max_adapters, share.max_concurrent) == (2, 10)  # floors of 8/3 and 32/3
    with pytest.raises(InvalidInputError, match="max_adapters is 8 for 9 processes"):
        share_of(settings.model_copy(update={"n_processes": 9}))
