"""Many users at once through one session's queue: errors, order, memory and bytes for each user.

Every user has coefficients of their own. All requests of a round are queued together; the session
admits them in order as rows become free. Memory of the process is read after every round, and its
growth is a line through the second half of the readings. HTTP is not part of it: see
`benchmarks.serve`.

The gate: no request fails, and the first tokens come in the order of the queue up to the size of
the running batch.
"""

import tracemalloc
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import typer
from pydantic import Field

from palate import Library
from palate.core.errors import CheckFailedError
from palate.core.files import dump_json
from palate.core.plan import parameter_soup_plan
from palate.core.progress import progress_of
from palate.core.protocols import Request, SamplingParams
from palate.core.seeds import generator_for
from palate.core.settings import Settings, load_settings
from research.command_line import IsJson, Overrides, run

PROMPT = "What is a lighthouse?"


class UsersBenchSettings(Settings):
    """How many users, and how long."""

    library: str = "smollm2-135m"
    dtype: str = "bfloat16"
    n_users: int = Field(default=1000, ge=1)
    n_rounds: int = Field(default=1, ge=1)  # requests of every user
    max_tokens: int = Field(default=4, ge=1)
    seed: int = 0


def bench_users(settings: UsersBenchSettings) -> dict[str, Any]:
    """Answer every user in every round; plain data.

    Raises:
        CheckFailedError: a request failed, or was overtaken by more than a running batch.
    """
    library = Library.load(settings.library, dtype=settings.dtype)
    session = library.engine.open_session()
    n_experts = len(library.manifest.expert_names)
    generator = generator_for(settings.seed, "bench users")
    rows = generator.dirichlet(np.ones(n_experts), size=settings.n_users).tolist()
    sampling = SamplingParams(temperature=0.7, max_tokens=settings.max_tokens)
    text = library.format(PROMPT)
    readings: list[int] = []
    first_seconds: list[float] = []
    n_bytes = n_failed = most_overtaken = 0
    start = perf_counter()
    with progress_of("users") as report:
        for number in range(settings.n_rounds):
            if number == 0:
                tracemalloc.start()
            began = perf_counter()
            running = [
                session.add_request(
                    Request(text, parameter_soup_plan(tuple(row)), sampling, seed=k)
                )
                for k, row in enumerate(rows)
            ]
            if number == 0:
                n_bytes = tracemalloc.get_traced_memory()[0] // settings.n_users
                tracemalloc.stop()
            places = {one.index: place for place, one in enumerate(running)}
            order: list[int] = []
            while not session.is_idle:
                for one, _ in session.step():
                    if len(one.tokens) <= 1:
                        first_seconds.append(perf_counter() - began)
                        order.append(places[one.index])
            n_failed += sum(one.error is not None for one in running)
            overtaken = np.maximum.accumulate(order) - np.array(order)
            most_overtaken = max(most_overtaken, int(overtaken.max()))
            readings.append(_resident_bytes())
            report(number + 1, settings.n_rounds)
    n_requests = settings.n_rounds * settings.n_users
    if n_failed or most_overtaken > library.engine.max_num_seqs:
        raise CheckFailedError(
            f"{n_failed} of {n_requests} requests failed, one was overtaken by {most_overtaken}."
        )
    return {
        "settings": settings.model_dump(),
        "n_requests": n_requests,
        "n_failed": n_failed,
        "most_overtaken": most_overtaken,
        "requests_per_second": n_requests / (perf_counter() - start),
        "first_token_seconds": dict(
            zip(("p50", "p95"), np.quantile(first_seconds, [0.5, 0.95]).tolist(), strict=True)
        ),
        "waiting_bytes_per_user": n_bytes,
        "coefficient_bytes_per_user": 8 * n_experts,
        "mebibytes_after": [round(reading / 2**20, 1) for reading in readings],
        "growth_bytes_per_request_second_half": _slope(readings, settings.n_users),
    }


def _resident_bytes() -> int:
    """Memory of this process, on Linux."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


def _slope(readings: list[int], n_users: int) -> float:
    """Bytes a request, by a line through the second half; zero of fewer than two readings."""
    half = readings[len(readings) // 2 :]
    if len(half) < 2:
        return 0.0
    return float(np.polyfit(n_users * np.arange(len(half)), half, 1)[0])


def main(*, is_json: IsJson = False, overrides: Overrides = None) -> None:
    """Many users with coefficients of their own through one session."""
    result = bench_users(load_settings(UsersBenchSettings, overrides=overrides or ()))
    if is_json:
        typer.echo(dump_json(result))
        return
    for name, value in result.items():
        if name not in ("settings", "mebibytes_after"):
            typer.echo(f"{name}: {value}")
    typer.echo(f"memory: {result['mebibytes_after'][0]} to {result['mebibytes_after'][-1]} MiB")


if __name__ == "__main__":
    run(main)
