"""Many users at once, against the same server forced to one at a time.

Two servers on one library, one with the running batch and one whose batch holds a single row, are
raced in turns. Every user has coefficients of their own, so no two rows are alike. The gate: the
same request gets the same text from both.

With `n_requests`, short requests follow one another on the batching server and its memory is read.
"""

import http.client
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from pydantic import Field
from rich.console import Console
from rich.table import Table

from palate.core.errors import CheckFailedError
from palate.core.files import dump_json
from palate.core.progress import progress_of
from palate.core.seeds import generator_for
from palate.core.settings import Settings, load_settings
from research.command_line import IsJson, Overrides, run
from research.serving.server_process import FREE, ServerProcess, exchange

QUESTION = "What is a lighthouse?"
N_MEMORY = 20  # readings of the memory


class ServeBenchSettings(Settings):
    """How hard the server is tried."""

    n_users: int = Field(default=32, ge=1)
    n_tokens: int = Field(default=32, ge=2)
    n_rounds: int = Field(default=5, ge=1)
    n_requests: int = Field(default=0, ge=0)
    n_clients: int = Field(default=8, ge=1)
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """One streamed answer: text, seconds to its first token, and between tokens."""

    text: str
    first_seconds: float
    gaps: tuple[float, ...]


@dataclass(frozen=True)
class Round:
    """All users once: answers, and tokens per second of all together."""

    answers: list[Answer]
    tokens_per_second: float


def bench_serve(library: Path, settings: ServeBenchSettings) -> dict[str, Any]:
    """Race the two servers; ratios, seconds and the gate as plain data.

    Raises:
        CheckFailedError: a server does not start, or the gate does not hold.
    """
    with tempfile.TemporaryDirectory() as folder:
        many = ServerProcess(library, f"{folder}/many.db", FREE)
        one = ServerProcess(library, f"{folder}/one.db", (*FREE, "max_num_seqs=1"))
        try:
            many.start()
            one.start()
            bodies = _bodies(many, settings)
            result = _race(many, one, bodies, settings)
            if settings.n_requests:
                result["memory"] = _memory(many, settings)
        finally:
            many.kill()
            one.kill()
    return result


def _race(
    many: ServerProcess, one: ServerProcess, bodies: list[dict[str, Any]], s: ServeBenchSettings
) -> dict[str, Any]:
    rounds: dict[str, list[Round]] = {"together": [], "one at a time": [], "alone": []}
    with progress_of("serve users") as report:
        for warm, server in enumerate((many, one)):
            _round(server, bodies)
            report(warm + 1, 2 + s.n_rounds)
        for number in range(s.n_rounds):  # in turns, so that the neighbours' load falls on both
            rounds["together"].append(_round(many, bodies))
            rounds["one at a time"].append(_round(one, bodies))
            rounds["alone"].append(_round(many, bodies[number % len(bodies) :][:1]))
            report(number + 3, 2 + s.n_rounds)
    texts = [[answer.text for answer in rounds[name][0].answers] for name in list(rounds)[:2]]
    n_same = sum(a == b for a, b in zip(*texts, strict=True))
    if n_same < len(bodies):
        raise CheckFailedError(
            f"Only {n_same} of {len(bodies)} answers are the same in a batch as alone."
        )
    ratios = [
        a.tokens_per_second / b.tokens_per_second
        for a, b in zip(rounds["together"], rounds["one at a time"], strict=True)
    ]
    return {
        "settings": s.model_dump(),
        "gate": {"answers_equal_to_one_at_a_time": n_same, "of": len(bodies)},
        "throughput_ratio": {
            "median": float(np.median(ratios)),
            "minimum": min(ratios),
            "maximum": max(ratios),
            "n_rounds": len(ratios),
        },
        **{name: _numbers(parts) for name, parts in rounds.items()},
    }


def _numbers(rounds: list[Round]) -> dict[str, Any]:
    first = [answer.first_seconds for part in rounds for answer in part.answers]
    gaps = [gap for part in rounds for answer in part.answers for gap in answer.gaps]
    return {
        "tokens_per_second_median": float(np.median([part.tokens_per_second for part in rounds])),
        "first_token_seconds": _quantiles(first),
        "token_seconds": _quantiles(gaps),
    }


def _quantiles(values: list[float]) -> dict[str, float]:
    low, high = np.quantile(values, [0.5, 0.95])
    return {"p50": float(low), "p95": float(high), "n": len(values)}


def _bodies(server: ServerProcess, s: ServeBenchSettings) -> list[dict[str, Any]]:
    """One request for each user, all with different coefficients and seeds."""
    experts = [row["name"] for row in server.must("GET", "/v1/library")["experts"]]
    generator = generator_for(s.seed, "bench serve")
    return [
        {
            "model": "palate/soup",
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": s.n_tokens,
            "seed": place,
            "stream": True,
            "logprobs": True,  # one event for every token, whatever its text
            "palate": {
                "coefficients": dict(
                    zip(experts, generator.dirichlet(np.ones(len(experts))).tolist(), strict=True)
                )
            },
        }
        for place in range(s.n_users)
    ]


def _round(server: ServerProcess, bodies: list[dict[str, Any]]) -> Round:
    start = time.perf_counter()
    with ThreadPoolExecutor(len(bodies)) as pool:
        answers = list(pool.map(lambda body: _answer(server, body), bodies))
    seconds = time.perf_counter() - start
    n_tokens = sum(1 + len(answer.gaps) for answer in answers)
    return Round(answers, n_tokens / seconds)


def _answer(server: ServerProcess, body: dict[str, Any]) -> Answer:
    start = time.perf_counter()
    text, times = "", list[float]()
    for chunk in server.stream(body):
        for choice in chunk["choices"]:
            text += choice["delta"].get("content") or ""
            if choice["logprobs"] is not None:
                times.append(time.perf_counter())
    if not times:
        return Answer(text, time.perf_counter() - start, ())
    return Answer(text, times[0] - start, tuple(np.diff(times).tolist()))


def _memory(server: ServerProcess, s: ServeBenchSettings) -> dict[str, Any]:
    """Short requests one after another on a few connections; memory along the way."""
    body = {
        "model": "palate/base",
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 1,
    }
    part = max(1, s.n_requests // N_MEMORY)
    readings: list[list[float]] = []
    start = time.perf_counter()

    def send(count: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
        for _ in range(count):
            status, result = exchange(connection, "POST", "/v1/chat/completions", body)
            if status != 200:
                raise CheckFailedError(f"A short request was answered with {status}: {result}.")
        connection.close()

    with progress_of("short requests") as report, ThreadPoolExecutor(s.n_clients) as pool:
        for number in range(N_MEMORY):
            shares = [part // s.n_clients + (k < part % s.n_clients) for k in range(s.n_clients)]
            list(pool.map(send, shares))
            readings.append([(number + 1) * part, server.memory_bytes() / 2**20])
            report(number + 1, N_MEMORY)
    halfway = readings[N_MEMORY // 2 :]
    slope = np.polyfit([n for n, _ in halfway], [m for _, m in halfway], 1)[0]
    return {
        "n_requests": part * N_MEMORY,
        "requests_per_second": part * N_MEMORY / (time.perf_counter() - start),
        "mebibytes_after": readings,
        "growth_bytes_per_request_second_half": float(slope * 2**20),
    }


def main(
    library: Annotated[Path, typer.Argument(help="Folder of a library.")],
    *,
    overrides: Overrides = None,
    is_json: IsJson = False,
) -> None:
    """Many users at once, against the same server forced to one at a time."""
    result = bench_serve(library, load_settings(ServeBenchSettings, overrides=overrides or ()))
    if is_json:
        typer.echo(dump_json(result))
        return
    console, gate, ratio = Console(), result["gate"], result["throughput_ratio"]
    console.print(f"gate: {gate['answers_equal_to_one_at_a_time']} of {gate['of']} answers equal")
    table = Table("", "tokens/s", "first token p50, p95 ms", "between tokens p50, p95 ms")
    for name in ("together", "one at a time", "alone"):
        row = result[name]
        spans = [row["first_token_seconds"], row["token_seconds"]]
        shown = [f"{1000 * span['p50']:.1f}, {1000 * span['p95']:.1f}" for span in spans]
        table.add_row(name, f"{row['tokens_per_second_median']:.0f}", *shown)
    console.print(table)
    console.print(
        f"throughput {ratio['median']:.1f}x one at a time, {ratio['minimum']:.1f} to "
        f"{ratio['maximum']:.1f} in {ratio['n_rounds']} rounds",
        highlight=False,
    )


if __name__ == "__main__":
    run(main)
