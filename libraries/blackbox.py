"""Experts behind servers that nobody here wrote, against the same experts in this process.

    python -m libraries.blackbox smollm2-135m --server vllm=endpoints.yaml --prompts FILE \
        --out reports/NAME

A server is a name and the settings that `palate generate --engine openai --engine-config` takes;
several are measured one after the other. The mixture has equal shares of the endpoints' experts.
Along answers that this process sampled, every next-token distribution that is pooled from a
server's lists is compared with the exact one, at places spread evenly over all answers; intervals
are over answers. Then the engine answers one half of the prompts alone and the other together, so
that neither reads what the other left in a server's cache; a longer list reads what a shorter one
left. Sampling is at temperature 1. Both sides compute on the same processor: figures of speed are
ratios of one run.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from libraries.evaluate import held_out
from palate import Library, SamplingParams
from palate.core.files import write_json, write_text_atomic
from palate.core.plan import Plan
from palate.core.progress import progress_of
from palate.core.protocols import Request
from palate.core.seeds import derive_seed, generator_for
from palate.engine.listed import pool_lists
from palate.engine.logprobs import Scored, row_distributions
from palate.engine.openai.engine import BASE, OpenAIEngine
from palate.engine.protocol import Engine, ExecutionReport
from palate.library.engines import load_engine
from palate.metrics.intervals import bootstrap_interval
from palate.models.chat import encode_prompt, format_messages
from research.mixture.plans import mixture_plan

SMALL = 0.02  # a bound that a reader may neglect, total variation


@dataclass(frozen=True)
class Place:
    """A prefix of an answer, and the exact mixture's distribution of the next token."""

    prefix: tuple[int, ...]
    exact: Float[ndarray, " vocab"]
    answer: int  # which one


def main() -> None:
    """Compare, time, and write `NAME.json` and `NAME.md`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("library")
    parser.add_argument("--server", action="append", required=True, help="NAME=SETTINGS.yaml")
    parser.add_argument("--prompts", type=Path, nargs="+", required=True)
    parser.add_argument("--n-prompts", type=int, default=8)
    parser.add_argument("--n-tokens", type=int, default=200, help="places that are compared")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--lists", default="5,20,100,1000", help="lengths, by comma")
    parser.add_argument("--out", type=Path, required=True, help="report, without an ending")
    options = parser.parse_args()
    if options.n_prompts < 2:
        parser.error(f"--n-prompts is {options.n_prompts}, but one half is answered alone; use 2.")
    servers = dict(one.split("=", 1) for one in options.server)
    lengths = [int(length) for length in options.lists.split(",")]
    library = Library.load(options.library, dtype="float32")
    engines = {name: opened(library, Path(path)) for name, path in servers.items()}
    experts = [name for name in next(iter(engines.values())).endpoints if name != BASE]
    bank = library.bank
    plan = mixture_plan(experts=[bank.names.index(e) for e in experts], n_experts=bank.n_experts)
    sampling = SamplingParams(max_tokens=options.max_tokens)
    requests = [
        Request(
            format_messages(library.base, prompt), plan, sampling, derive_seed(0, "boxes", place)
        )
        for place, prompt in enumerate(held_out(options.prompts, options.n_prompts))
    ]
    every = places_of(library, plan, requests)
    spread = np.linspace(0, len(every) - 1, min(options.n_tokens, len(every))).round()
    places = [every[place] for place in spread.astype(int).tolist()]
    facts: dict[str, Any] = {
        "library": Path(options.library).name,
        "experts": experts,
        "n_prompts": len(requests),
        "n_places": len(places),
        "local": speed(library.engine, requests),
        "servers": {},
    }
    for name, engine in engines.items():
        rows: dict[int, dict[str, float]] = {}
        for length in lengths:
            engine.settings = engine.settings.model_copy(update={"top_k": length, "budget": 1.0})
            timed = speed(engine, requests)  # first: what is compared leaves prefixes in caches
            with progress_of(f"{name}, lists of {length}, places") as report:
                compared = [distances(engine, experts, place, length, plan) for place in places]
                report(len(places), len(places))
            mean = bootstrap_interval(
                [bound for bound, *_ in compared],
                clusters=[str(place.answer) for place in places],
                generator=generator_for(0, "boxes", name, str(length)),
            )
            ends = {"low": mean.low, "high": mean.high}
            rows[length] = {**summary(compared), **ends, **timed}
        facts["servers"][name] = rows
        engine.close()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out.with_suffix(".json"), facts)
    write_text_atomic(options.out.with_suffix(".md"), as_markdown(facts))


def opened(library: Library, settings: Path) -> OpenAIEngine:
    """The engine over these endpoints."""
    engine = load_engine("openai", settings).open(library)
    if not isinstance(engine, OpenAIEngine):
        raise TypeError(engine)
    return engine


def places_of(library: Library, plan: Plan, requests: Sequence[Request]) -> list[Place]:
    """Every place of this process's own answers."""
    base, bank, places = library.base, library.bank, list[Place]()
    shares = torch.tensor(plan.pool.coefficients, dtype=torch.float64)
    answers = library.engine.generate(requests)
    for number, (request, answer) in enumerate(zip(requests, answers, strict=True)):
        context, tokens = tuple(encode_prompt(base, request.prompt)), answer.tokens
        rows = row_distributions(base, bank, plan=plan, item=Scored(context, tokens))
        mixed = torch.einsum("r,rtv->tv", shares, rows.double().exp()).numpy()
        places += [
            Place((*context, *tokens[:at]), exact / exact.sum(), number)
            for at, exact in enumerate(mixed)
        ]
    return places


def distances(
    engine: OpenAIEngine, experts: Sequence[str], place: Place, length: int, plan: Plan
) -> tuple[float, float, bool]:
    """Bound, true total variation, and whether the most probable token is the same."""
    futures = [
        engine.row_threads.submit(engine.endpoints[e].next_log_probs, place.prefix, top_k=length)
        for e in experts
    ]
    lists = [future.result() for future in futures]
    pooled = pool_lists(lists, plan.pool, n_vocab=engine.base.n_vocab)
    found = np.zeros_like(place.exact)
    found[list(pooled.probs)] = list(pooled.probs.values())
    distance = 0.5 * float(np.abs(found - place.exact).sum())
    return pooled.bound, distance, bool(found.argmax() == place.exact.argmax())


def summary(compared: Sequence[tuple[float, float, bool]]) -> dict[str, float]:
    """Means and maxima over places."""
    bounds, distance, same = np.array(compared, dtype=np.float64).T
    return {
        "bound": float(bounds.mean()),
        "max_bound": float(bounds.max()),
        "distance": float(distance.mean()),
        "max_distance": float(distance.max()),
        "beyond": float((distance - bounds).max()),
        "is_small": float((bounds < SMALL).mean()),
        "is_same": float(same.mean()),
    }


def speed(engine: Engine, requests: Sequence[Request]) -> dict[str, float]:
    """Tokens per second alone and together, calls per token, and the bound that answers report."""
    start, n_alone = perf_counter(), 0
    for request in requests[::2]:
        n_alone += len(engine.generate([request])[0].tokens)
    alone = perf_counter() - start
    session, start = engine.open_session(), perf_counter()
    running = [session.add_request(request) for request in requests[1::2]]
    while not session.is_idle:
        session.step()
    together = perf_counter() - start
    if failed := [one.error for one in running if one.error is not None]:
        raise failed[0]
    reports = [report for one in running if (report := session.report(one)) is not None]
    session.close()
    n_together = sum(len(one.tokens) for one in running)
    return {
        "alone": n_alone / alone,
        "together": n_together / together,
        "calls": sum(one.n_calls for one in reports) / n_together,
        "reported": _mean_bound(reports),
    }


def _mean_bound(reports: Sequence[ExecutionReport]) -> float:
    bounds = [bound for report in reports for bound in report.list_bounds]
    return float(np.mean(bounds)) if bounds else 0.0


def as_markdown(facts: dict[str, Any]) -> str:
    """Exactness and speed by server and list length."""
    local = facts["local"]
    lines = [
        f"Library {facts['library']}, float32, equal shares of {', '.join(facts['experts'])}; "
        f"{facts['n_places']} next tokens of {facts['n_prompts']} answers. This process: "
        f"{local['alone']:.1f} tokens a second alone, {local['together']:.1f} together.",
        "",
        "| server | list | bound, mean | max | true, mean | max | beyond the bound, at most | "
        f"bound under {SMALL:g} | same best token | calls a token | tokens/s alone | together |",
        "|---|" + "---|" * 11,
    ]
    for name, rows in facts["servers"].items():
        for length, row in rows.items():
            lines.append(
                f"| {name} | {length} | {row['bound']:.5f} [{row['low']:.5f}, {row['high']:.5f}] | "
                f"{row['max_bound']:.5f} | "
                f"{row['distance']:.5f} | {row['max_distance']:.5f} | {row['beyond']:.1e} | "
                f"{row['is_small']:.1%} | {row['is_same']:.1%} | {row['calls']:.2f} | "
                f"{row['alone']:.2f} | {row['together']:.2f} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
