"""The same requests through two servers of palate: one that answers itself, one on a vLLM.

    python -m benchmarks.vllm_engine.servers WORK URL [--n N] [--engine-set KEY=VALUE ...]
        [--users P] [--replicas R --database postgresql://...]

WORK is the folder that prepare.py wrote, URL its vLLM. Starts both servers as processes, and sends
each request to both: every method, streamed and whole, greedy and drawn, of P users at once. With
--replicas the second server is `palate serve`, R replicas in front of the one vLLM; it needs
Ray, and a PostgreSQL without users. Prints JSON, one row a method. Exit code 1 where an answer
that says to be exact has another text, or a request fails.
"""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from openai import OpenAI

from palate.core.errors import CheckFailedError
from palate.metrics.intervals import wilson_interval
from palate.serve.replicas import REPLICA
from research.command_line import run
from research.serving.server_process import FREE, ServerProcess

OPENINGS = (
    "Once upon a time, there was a little girl named Lily.",
    "Tom and his dog went to the park.",
    "One day, a big red ball rolled down the hill.",
    "Ben was sad because his toy",
)
EXPERTS = ("bright", "short", "gentle")
METHODS = {  # by label
    "base": "base",
    "expert": "soup",
    "soup": "soup",
    "rounded soup": "soup",
    "output-soup": "output-soup",
}
LABELS = tuple(METHODS)
STEP = 0.05
MAX_TOKENS = 24


def requests_of(n: int, users: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Label and body, the same for the same `n`."""
    generator = np.random.default_rng(0)
    for place in range(n):
        label, turn = LABELS[place % len(LABELS)], place // len(LABELS)
        free = generator.uniform(-0.5, 1.0, size=len(EXPERTS))
        values = {
            "expert": np.eye(len(EXPERTS))[turn % len(EXPERTS)],
            "soup": np.round(np.rint(free / STEP) * STEP, 2),
        }.get(label, free)
        known: dict[str, Any] = {"method": METHODS[label], "user": f"user-{place % users}"}
        if label != "base":
            known["coefficients"] = dict(zip(EXPERTS, values.tolist(), strict=True))
        is_drawn = label == "output-soup" and turn % 2 == 1
        yield (
            label,
            {
                "prompt": OPENINGS[turn % len(OPENINGS)],
                "max_tokens": MAX_TOKENS,
                "temperature": 1.0 if is_drawn else 0.0,
                "seed": place,
                "stream": turn % 4 >= 2,
                "extra_body": {"palate": known},
            },
        )


def answer(client: OpenAI, body: dict[str, Any]) -> tuple[str, dict[str, Any], float]:
    """Text, the `palate` object, the last one of a stream, with who answered, and seconds."""
    started = time.perf_counter()
    raw = client.completions.with_raw_response.create(model="palate", **body)
    result: Any = raw.parse()
    if not body["stream"]:
        text, said = result.choices[0].text, result.palate
    else:
        text, said = "", {}
        for chunk in result:
            said = getattr(chunk, "palate", None) or said
            text += "".join(choice.text for choice in chunk.choices)
    said = {**said, "replica": raw.headers.get(REPLICA, "")}
    return text, said, time.perf_counter() - started


def compare(local: str, remote: str, n: int, users: int) -> dict[str, Any]:
    """One row a label; `n_exact` says how often the second server called its answer exact."""
    asked = list(requests_of(n, users))
    clients = [OpenAI(base_url=f"{url}/v1", api_key="none") for url in (local, remote)]
    answers: list[list[tuple[str, dict[str, Any], float]]] = []
    seconds: list[float] = []
    for client in clients:
        started = time.perf_counter()
        with ThreadPoolExecutor(users) as threads:
            answers.append(list(threads.map(partial(answer, client), [body for _, body in asked])))
        seconds.append(time.perf_counter() - started)
    rows: dict[str, dict[str, Any]] = {}
    for (label, _), (own, _, _), (theirs, said, _) in zip(asked, *answers, strict=True):
        engine = said["engine"]
        start = {"n": 0, "n_equal": 0, "n_exact": 0, "n_exact_equal": 0, "n_calls": 0}
        start |= {"largest_rounding_bound": 0.0, "largest_list_bound": 0}
        row = rows.setdefault(label, start)
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
    return {
        "methods": rows,
        "exact": n_exact,
        "equal": n_equal,
        "interval": wilson_interval(n_equal, n_exact),
        "answers_by_replica": sorted(Counter(s["replica"] for _, s, _ in answers[1]).values()),
        "median_seconds": [float(np.median([t for _, _, t in result])) for result in answers],
        "seconds": seconds,
    }


def main(  # noqa: PLR0913  a command with its options
    work: Path,
    url: str,
    n: int = 60,
    users: Annotated[int, typer.Option(help="Who ask at the same time.")] = 1,
    replicas: int = 0,
    database: Annotated[str, typer.Option(help="Of the replicas.")] = "",
    engine_set: Annotated[list[str] | None, typer.Option(help="KEY=VALUE; repeatable.")] = None,
) -> None:
    """The same completions of two servers, one of them on a running vLLM."""
    words = ["serve", "--replicas", str(replicas)] if replicas else ["serve"]
    options = [*words, "--engine", "vllm", "--url", url]
    options += ["--adapters", str(work / "wide/experts")]
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"adapters_folder={folder}/adapters", "max_lora_rank=32", *(engine_set or [])]
        for setting in settings:
            options += ["--engine-set", setting]
        servers = [
            ServerProcess(work / "library", store, FREE, words=how)
            for store, how in (
                (f"{folder}/own.db", ["serve"]),
                (database or f"{folder}/other.db", options),
            )
        ]
        try:
            for server in servers:
                server.start()
            urls = [f"http://127.0.0.1:{server.port}" for server in servers]
            result = compare(urls[0], urls[1], n, users)
        finally:
            for server in servers:
                server.stop()
    print(json.dumps(result, indent=1))
    if result["equal"] < result["exact"]:
        raise CheckFailedError("Exact answers of the two servers differ.")


if __name__ == "__main__":
    run(main)
