"""Two engines at work on one vLLM, as two processes are: does one unload what the other needs?

    python -m benchmarks.vllm_engine.sharing WORK URL [--n N] [--engine-set KEY=VALUE ...]

WORK is the folder that prepare.py wrote, URL its vLLM. Two threads on each engine ask for N rounds
of greedy soups, in orders of their own, with so few adapters that nearly every answer loads one.
Prints what came of it as JSON; exit code 1 where an answer failed or has other tokens than in this
process.
"""

import json
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from palate import Library
from palate.core.errors import CheckFailedError, PalateError
from palate.core.plan import output_soup_plan, parameter_soup_plan
from palate.core.protocols import Request, SamplingParams
from palate.core.settings import load_settings
from palate.engine.vllm.client import VllmSettings
from palate.engine.vllm.engine import VllmEngine, connect, expert_folders_in
from research.command_line import run

SOUPS = [(0.05 * k, 0.5, -0.25) for k in range(1, 7)]
GREEDY = SamplingParams(temperature=0.0, max_tokens=20)
PLANS = [parameter_soup_plan(c) for c in SOUPS] + [output_soup_plan(c) for c in SOUPS[:2]]
REQUESTS = [Request("Once upon a time", plan, GREEDY) for plan in PLANS]
USE = ("n_processes=2", "max_adapters=4", "max_lora_rank=32", "top_k=512", "max_top_k=512")


def ask(own: list[tuple[int, ...]], n: int, engine: VllmEngine, seed: int) -> Counter[str]:
    """How often an answer was equal, other or failed."""
    result: Counter[str] = Counter()
    for place in np.random.default_rng(seed).permutation(np.tile(np.arange(len(REQUESTS)), n)):
        try:
            tokens = engine.generate([REQUESTS[place]])[0].tokens
            result["equal" if tokens == own[place] else "other"] += 1
        except PalateError as error:
            result["failed"] += 1
            print(error, file=sys.stderr)
    return result


def main(
    work: Path,
    url: str,
    n: int = 2,
    engine_set: Annotated[list[str] | None, typer.Option(help="KEY=VALUE; repeatable.")] = None,
) -> None:
    """Two engines at once on one vLLM, against the engine in this process."""
    opened = Library.load(work / "library")
    own = [opened.engine.generate([request])[0].tokens for request in REQUESTS]
    with tempfile.TemporaryDirectory() as folder:
        said = [f"url={url}", f"adapters_folder={folder}", "n_retries=0", *USE]
        settings = load_settings(VllmSettings, overrides=[*said, *(engine_set or [])])
        experts = expert_folders_in(work / "wide/experts")
        engines = [connect(settings, opened.base, experts) for _ in range(2)]
        started = time.monotonic()
        with ThreadPoolExecutor(4) as threads:
            turns = threads.map(partial(ask, own, n), engines * 2, range(4))
            result = sum(turns, Counter[str]())
        caches = [engine.context.cache for engine in engines]
        shown = {
            **result,
            "seconds": round(time.monotonic() - started, 1),
            "loads": sum(cache.n_loads for cache in caches),
            "evictions": sum(cache.n_evictions for cache in caches),
        }
        for engine in engines:
            engine.close()
    print(json.dumps(shown))
    if set(result) != {"equal"}:
        raise CheckFailedError("Not every answer equals that of the engine in this process.")


if __name__ == "__main__":
    run(main)
