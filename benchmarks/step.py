"""Seconds of one step of a library's engine: by plan, and while a long prompt joins.

    plans   one sequence; the base, one expert, a soup of all, mixtures of three and of all experts
    join    answers run, each with coefficients of its own, and a long prompt joins them: the
            longest pause between two of their tokens, in steps of before

Contestants take turns. The clock is the thread's, for a shared machine. The gate: the answers that
run are, token by token, those of the same requests without the long prompt, in float32; in bfloat16
a batch of another size is rounded in another way, and the share of equal answers is only stated.
"""

from dataclasses import replace
from time import thread_time
from typing import Any

import numpy as np
import typer
from pydantic import Field

from palate import Library
from palate.core.errors import CheckFailedError
from palate.core.files import dump_json
from palate.core.plan import Plan, member_plan, parameter_soup_plan, reference_plan
from palate.core.protocols import Request, SamplingParams
from palate.core.seeds import generator_for
from palate.core.settings import Settings, load_settings
from research.command_line import IsJson, Overrides, run
from research.mixture.plans import mixture_plan

PROMPT = "Explain how a bicycle stays upright."
N_AFTER = 6  # tokens of the long prompt's answer that are watched
MOST_STEPS = 200  # in which a prompt has to have joined


class StepBenchSettings(Settings):
    """What is raced."""

    library: str = "smollm2-135m"
    dtype: str = "bfloat16"
    n_repeats: int = Field(default=15, ge=1)
    n_running: int = Field(default=31, ge=0)  # answers that a prompt joins; 0 leaves this out
    long_tokens: int = Field(default=1024, ge=2)
    chunk_tokens: list[int] = Field(default=[0, 256, 64, 16], min_length=1)  # 0: all at once
    seed: int = 0


def bench_steps(settings: StepBenchSettings) -> dict[str, Any]:
    """Both races; plain data.

    Raises:
        CheckFailedError: in float32 a greedy token changed because a prompt joined.
    """
    library = Library.load(settings.library, dtype=settings.dtype)
    result: dict[str, Any] = {"settings": settings.model_dump(), "plans": _plans(library, settings)}
    if settings.n_running:
        result["join"] = {n: _join(library, settings, n) for n in settings.chunk_tokens}
    return result


def _plans(library: Library, settings: StepBenchSettings) -> dict[str, Any]:
    n = len(library.manifest.expert_names)
    plans = {
        "base": reference_plan(n_experts=n),
        "one expert": member_plan(index=0, n_experts=n),
        "soup of all": parameter_soup_plan((1.0 / n,) * n),
        **{f"mixture of {k}": mixture_plan(experts=range(k), n_experts=n) for k in {min(3, n), n}},
    }
    n_tokens = settings.n_repeats + 4
    sessions = {name: library.engine.open_session() for name in plans}
    for name, plan in plans.items():
        sessions[name].add_request(_request(library, plan, n_tokens=n_tokens))
        sessions[name].step()
        sessions[name].step()
    seconds: dict[str, list[float]] = {name: [] for name in plans}
    for _ in range(settings.n_repeats):
        for name, session in sessions.items():
            seconds[name].append(_seconds(session))
    return {
        name: {
            "minimum_seconds": min(own),
            "median_seconds": float(np.median(own)),
            "times_the_base_minimum": min(own) / min(seconds["base"]),
            "times_the_base_median": float(np.median(own) / np.median(seconds["base"])),
        }
        for name, own in seconds.items()
    }


def _join(library: Library, settings: StepBenchSettings, n_chunk: int) -> dict[str, Any]:
    before, pauses, answers = _joined(library, settings, n_chunk)
    _, _, wanted = _joined(library, settings, None)
    n_same = sum(a[: len(b)] == b[: len(a)] for a, b in zip(answers, wanted, strict=True))
    if settings.dtype == "float32" and n_same < len(answers):
        raise CheckFailedError(
            f"Only {n_same} of {len(answers)} answers are the same while a prompt joins."
        )
    step = float(np.median(before))
    return {
        "step_seconds_before": step,
        "longest_pause_in_steps": max(pauses) / step,
        "step_after_in_steps": float(np.median(pauses[-N_AFTER + 1 :])) / step,
        "same_answers": n_same,
        "of": len(answers),
    }


def _joined(
    library: Library, settings: StepBenchSettings, n_chunk: int | None
) -> tuple[list[float], list[float], list[list[int]]]:
    """Seconds of steps before and after the long prompt came (`None`: never), and the answers."""
    old: Any = library.engine
    prefill = replace(old.prefill, max_prefix_tokens=2**15, prefill_chunk_tokens=n_chunk or None)
    options = {"max_num_seqs": 2 * settings.n_running + 2, "prefill": prefill}
    session = type(old)(library.base, old.bank, **options).open_session()
    n_experts, generator = old.bank.n_experts, generator_for(settings.seed, "bench step")
    rows = generator.dirichlet(np.ones(n_experts), size=settings.n_running + 1)
    n_tokens = settings.n_repeats + MOST_STEPS
    running = [
        session.add_request(_request(library, parameter_soup_plan(tuple(row)), n_tokens=n_tokens))
        for row in rows[:-1].tolist()
    ]
    session.step()
    before = [_seconds(session) for _ in range(settings.n_repeats)]
    pauses: list[float] = []
    if n_chunk is not None:
        plan = parameter_soup_plan(tuple(rows[-1].tolist()))
        request = _request(library, plan, n_tokens=N_AFTER)
        ids = library.base.tokenizer(library.format(PROMPT), add_special_tokens=False)["input_ids"]
        whole = (ids * (settings.long_tokens // len(ids) + 1))[-settings.long_tokens :]
        long = session.add_request(replace(request, tokens=tuple(whole)))
        while len(long.tokens) < N_AFTER and len(pauses) < MOST_STEPS:
            pauses.append(_seconds(session))
    else:
        for _ in range(MOST_STEPS // 4):
            session.step()
    return before, pauses, [list(one.tokens) for one in running]


def _request(library: Library, plan: Plan, *, n_tokens: int) -> Request:
    """A greedy request that ends at its most tokens."""
    sampling = SamplingParams(temperature=0.0, max_tokens=n_tokens)
    bias = dict.fromkeys(library.base.stop_ids, -100.0)
    return Request(library.format(PROMPT), plan, sampling, logit_bias=bias)


def _seconds(session: Any) -> float:
    start = thread_time()
    session.step()
    return thread_time() - start


def main(*, is_json: IsJson = False, overrides: Overrides = None) -> None:
    """Steps by plan, and the pause while a long prompt joins."""
    result = bench_steps(load_settings(StepBenchSettings, overrides=overrides or ()))
    if is_json:
        typer.echo(dump_json(result))
        return
    for name, one in result["plans"].items():
        typer.echo(f"{name}: {one['times_the_base_minimum']:.2f}x a step of the base")
    for chunk, one in result.get("join", {}).items():
        typer.echo(
            f"chunks of {chunk}: longest pause {one['longest_pause_in_steps']:.1f} steps, then "
            f"{one['step_after_in_steps']:.1f}; {one['same_answers']} of {one['of']} answers equal"
        )


if __name__ == "__main__":
    run(main)
