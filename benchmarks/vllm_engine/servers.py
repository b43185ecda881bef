"""The same requests through two servers of palate: one that answers itself, one on a vLLM.

    python benchmarks/vllm_engine/servers.py WORK URL [--n N] [--engine-set KEY=VALUE ...]

WORK is the folder that prepare.py wrote, URL its vLLM. Starts both servers as processes, and sends
each request to both: all ways, streamed and whole, greedy and drawn. Prints one row a way as JSON.
Exit code 1 where an answer that says to be exact has another text, or a request fails.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from openai import OpenAI

from palate.metrics.intervals import wilson_interval
from palate.recipes.serve_process import FREE, ServerProcess

OPENINGS = (
    "Once upon a time, there was a little girl named Lily.",
    "Tom and his dog went to the park.",
    "One day, a big red ball rolled down the hill.",
    "Ben was sad because his toy",
)
EXPERTS = ("bright", "short", "gentle")
STEP = 0.05
MAX_TOKENS = 24


def requests_of(n: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Way and body, the same for the same `n`."""
    generator = np.random.default_rng(0)
    ways = ("base", "portfolio", "soup", "rounded soup", "output-soup", "mixture")
    for place in range(n):
        way = ways[place % len(ways)]
        shares = generator.dirichlet(np.ones(len(EXPERTS)))
        free = generator.uniform(-0.5, 1.0, size=len(EXPERTS))
        known: dict[str, Any] = {"way": way}
        if way in ("portfolio", "mixture"):
            known["preference"] = dict(zip(EXPERTS, shares.tolist(), strict=True))
        elif way != "base":
            grid = np.round(np.rint(free / STEP) * STEP, 2)
            values = grid if way == "soup" else free
            known |= {"way": way.removeprefix("rounded "), "coefficients": {}}
            known["coefficients"] = dict(zip(EXPERTS, values.tolist(), strict=True))
        is_drawn = way in ("output-soup", "mixture") and place // len(ways) % 2 == 1
        yield (
            way,
            {
                "prompt": OPENINGS[place // len(ways) % len(OPENINGS)],
                "max_tokens": MAX_TOKENS,
                "temperature": 1.0 if is_drawn else 0.0,
                "seed": place,
                "stream": place // len(ways) % 4 >= 2,
                "extra_body": {"palate": known},
            },
        )


def answer(client: OpenAI, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Text and the `palate` object, the last one of a stream."""
    found: Any = client.completions.create(model="palate", **body)
    if not body["stream"]:
        return found.choices[0].text, found.palate
    text, said = "", {}
    for chunk in found:
        said = getattr(chunk, "palate", None) or said
        text += "".join(choice.text for choice in chunk.choices)
    return text, said


def compare(local: str, remote: str, n: int) -> dict[str, Any]:
    """One row a way; `n_exact` says how often the second server called its answer exact."""
    clients = [OpenAI(base_url=f"{url}/v1", api_key="none") for url in (local, remote)]
    rows: dict[str, dict[str, Any]] = {}
    seconds = [0.0, 0.0]
    for way, body in requests_of(n):
        found: list[tuple[str, dict[str, Any]]] = []
        for place, client in enumerate(clients):
            started = time.perf_counter()
            found.append(answer(client, body))
            seconds[place] += time.perf_counter() - started
        (own, _), (theirs, said) = found
        engine = said["engine"]
        start = {"n": 0, "n_equal": 0, "n_exact": 0, "n_exact_equal": 0, "n_calls": 0}
        row = rows.setdefault(way, start | {"largest_rounding_bound": 0.0, "largest_list_bound": 0})
        row["n"] += 1
        row["n_equal"] += own == theirs
        row["n_exact"] += engine["is_exact"]
        row["n_exact_equal"] += engine["is_exact"] and own == theirs
        row["n_calls"] += engine["n_calls"]
        for kind in ("rounding_bound", "list_bound"):
            name = f"largest_{kind}"
            row[name] = None if engine[kind] is None else max(row[name], engine[kind])
    n_exact = sum(row["n_exact"] for row in rows.values())
    n_equal = sum(row["n_exact_equal"] for row in rows.values())
    interval = wilson_interval(n_equal, n_exact)
    return {"ways": rows, "exact": n_exact, "equal": n_equal, "interval": interval} | {
        "seconds": seconds
    }


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("url")
    parser.add_argument("--n", type=int, default=60)
    parser.add_argument("--engine-set", action="append", default=[])
    given = parser.parse_args(words)
    options = ["serve", "--engine", "vllm", "--url", given.url]
    options += ["--adapters", str(given.work / "wide/experts")]
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"adapters_folder={folder}/adapters", "max_lora_rank=32", *given.engine_set]
        for setting in settings:
            options += ["--engine-set", setting]
        servers = [
            ServerProcess(given.work / "library", f"{folder}/{place}.db", FREE, words=how)
            for place, how in enumerate((["serve"], options))
        ]
        try:
            for server in servers:
                server.start()
            found = compare(*(f"http://127.0.0.1:{server.port}" for server in servers), given.n)
        finally:
            for server in servers:
                server.stop()
    print(json.dumps(found, indent=1))
    return int(found["equal"] < found["exact"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
