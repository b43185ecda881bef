"""Is a running vLLM the same engine? Every way, side by side, with bounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from jaxtyping import Float
from numpy import ndarray
from rich.console import Console
from rich.table import Table

from palate import Library
from palate.core.errors import CheckFailedError
from palate.core.files import dump_json
from palate.core.plan import reference_plan
from palate.core.protocols import Request, SamplingParams
from palate.core.settings import load_settings
from palate.engine.bank import AdapterBank
from palate.engine.logprobs import Scored
from palate.engine.vllm.client import VllmSettings
from palate.engine.vllm.rounding import Rounding, gram_of, rates_of, soup_probs, users_points
from palate.models.adapter import load_adapter
from palate.models.chat import encode_prompt
from palate.models.load import Base
from research.command_line import IsJson, Overrides, run
from research.serving.engines_compare import (
    compare,
    failures,
    open_vllm,
    requests_of_all_ways,
    to_json,
)

CALIBRATION = (
    "The little boy wanted to play with the",
    "Anna had a blue kite and she",
    "One night, the moon was very",
    "The old man gave the children some",
)
CHECKED = ("A small fish swam in the", "Mom said it was time to", "The frog jumped over the")
N_POINTS = 12
SHORT_LIST = 20


@dataclass(frozen=True)
class RateCheck:
    """How the bound of rounding did on texts and coefficients it was not made from.

    Attributes:
        n_tokens: Next-token distributions compared.
        n_outside: Those that changed by more than the bound.
        largest: Largest total variation that rounding caused.
        mean_bound: Of the bounds.
    """

    n_tokens: int
    n_outside: int
    largest: float
    mean_bound: float


@dataclass(frozen=True, eq=False)
class Calibrated:
    """Rates of rounding, and how the bound made of them did elsewhere."""

    rates: tuple[float, ...]
    check: RateCheck
    worst_bound: float


def compare_engines(
    folder: Path,
    settings: VllmSettings,
    *,
    n: int = 200,
    max_tokens: int = 24,
    seed: int = 0,
) -> dict[str, Any]:
    """The comparison as plain data; `failures` in it is empty when the engines agree.

    Rates are measured on some texts and checked on others before the server is asked anything.
    Then `n` requests of all ways go through both engines with whole lists, and those with several
    rows once more with short lists, where the certified bound is not zero.

    Args:
        folder: A library.
        settings: Where its server is; `max_top_k` is taken to be the whole vocabulary.
        n: Requests.
        max_tokens: Of an answer.
        seed: Of plans and draws.
    """
    calibrated = calibrate(Library.load(folder), step=settings.coefficient_step, seed=seed)
    opened = open_vllm(folder, settings, rates=calibrated.rates)
    asked = requests_of_all_ways(
        n=n,
        n_experts=opened.opened.bank.n_experts,
        max_tokens=max_tokens,
        step=settings.coefficient_step,
        seed=seed,
    )
    whole = compare(opened, asked)
    cache = opened.engine.context.cache
    found = to_json(whole)
    found["adapters"] = {"loads": cache.n_loads, "evictions": cache.n_evictions}
    opened.engine.close()
    short = settings.model_copy(
        update={"top_k": SHORT_LIST, "max_top_k": SHORT_LIST, "budget": 1.0, "pools": "lists"}
    )
    listed = open_vllm(folder, short, rates=calibrated.rates)
    unsigned = [
        one
        for one in asked
        if one.method in ("output-soup", "mixture") and min(one.request.plan.pool.coefficients) >= 0
    ]
    lists = compare(listed, unsigned)
    listed.engine.close()
    return {
        "settings": {"n": n, "max_tokens": max_tokens, "seed": seed, "step": short.coefficient_step}
        | {"short_lists": SHORT_LIST},
        "rounding": {"rates": list(calibrated.rates), "worst_bound": calibrated.worst_bound}
        | {"held_out": vars(calibrated.check)},
        **found,
        "short_lists": [vars(row) for row in lists],
        "failures": failures(whole) + [f"short lists: {text}" for text in failures(lists)],
    }


def calibrate(opened: Library, *, step: float, seed: int) -> Calibrated:
    """Rates on some texts; the bound made of them on other texts and other coefficients."""
    bank = opened.bank
    items = _answers(opened, CALIBRATION, seed=seed)
    points = users_points(n_experts=bank.n_experts, n_points=N_POINTS, seed=seed)
    rates = rates_of(opened.base, bank, items=items, points=points)
    adapters = [load_adapter(path) for path in opened.files.expert_folders().values()]
    rounding = Rounding(step, gram_of(adapters), rates)
    others = users_points(n_experts=bank.n_experts, n_points=4 * N_POINTS, seed=seed + 1)
    check = check_rates(
        opened.base,
        bank,
        rounding,
        items=_answers(opened, CHECKED, seed=seed + 1),
        points=_off_grid(others, step=step),
    )
    return Calibrated(rates, check, worst_bound(rounding))


def check_rates(
    base: Base,
    bank: AdapterBank,
    rounding: Rounding,
    *,
    items: Sequence[Scored],
    points: Float[ndarray, "points experts"],
) -> RateCheck:
    """How often rounding these coefficients stayed within its bound on these texts."""
    gaps_seen: list[float] = []
    bounds: list[float] = []
    for item in items:
        for point in points:
            near = rounding.rounded(point.tolist())
            exact = soup_probs(base, bank, point, item)
            moved = soup_probs(base, bank, np.array(near.coefficients), item)
            gaps = 0.5 * (exact - moved).abs().sum(dim=1)
            gaps_seen += gaps.tolist()
            bounds += [1.0 if near.bound is None else near.bound] * len(gaps)
    outside = sum(gap > bound + 1e-9 for gap, bound in zip(gaps_seen, bounds, strict=True))
    return RateCheck(len(gaps_seen), outside, max(gaps_seen), float(np.mean(bounds)))


def worst_bound(rounding: Rounding) -> float:
    """The distributions' bound for coefficients half a step off each; 0 if rates are unknown."""
    return min(1.0, rounding.step / 2 * sum(rounding.rates))


def _answers(opened: Library, openings: Sequence[str], *, seed: int) -> list[Scored]:
    plan = reference_plan(n_experts=opened.bank.n_experts)
    requests = [Request(text, plan, SamplingParams(max_tokens=24), seed) for text in openings]
    return [
        Scored(tuple(encode_prompt(opened.base, request.prompt)), answer.tokens)
        for request, answer in zip(requests, opened.engine.generate(requests), strict=True)
    ]


def _off_grid(
    points: Float[ndarray, "points experts"], *, step: float
) -> Float[ndarray, "points experts"]:
    """Points of which every second lies as far off the grid as can be: the hardest to round."""
    hard = points.copy()
    if step:
        hard[::2] = (np.floor(points[::2] / step) + 0.499) * step
    return hard


def main(
    library: Annotated[Path, typer.Argument(help="The library that the server serves.")],
    *,
    url: Annotated[str, typer.Option(help="Of a running vLLM, up to and including /v1.")],
    adapters: Annotated[
        Path | None,
        typer.Option(help="The experts as the vLLM has them, where its base is a rewritten one."),
    ] = None,
    n: Annotated[int, typer.Option("--n", min=6, help="Requests.")] = 200,
    overrides: Overrides = None,
    is_json: IsJson = False,
) -> None:
    """The same requests, all ways, through the engine here and through a running vLLM."""
    settings = load_settings(VllmSettings, overrides=[f"url={url}", *(overrides or ())])
    settings = settings.model_copy(update={"server_experts": adapters})
    found = compare_engines(library, settings, n=n)
    if is_json:
        typer.echo(dump_json(found))
    else:
        _show(found)
    if found["failures"]:
        raise CheckFailedError("The engines differ: " + "; ".join(found["failures"]) + ".")


def _show(found: dict[str, Any]) -> None:
    console = Console()
    for title, rows in (("whole lists", found["ways"]), ("short lists", found["short_lists"])):
        table = Table(
            title, "requests", "same tokens", "ties", "log-prob gap", "distance", "bound", "certain"
        )
        for row in rows:
            table.add_row(
                row["way"],
                str(row["n"]),
                str(row["n_equal"]),
                str(row["n_ties"]),
                f"{row['largest_log_prob_gap']:.1e}",
                f"{row['largest_distance']:.4f}",
                f"{row['largest_bound']:.4f}",
                f"{row['n_certified'] / row['n_tokens']:.1%}",
            )
        console.print(table)
    check = found["rounding"]["held_out"]
    console.print(
        f"rounding: {check['n_outside']} of {check['n_tokens']} held-out tokens outside the bound; "
        f"largest {check['largest']:.4f}, mean bound {check['mean_bound']:.4f}"
    )


if __name__ == "__main__":
    run(main)
