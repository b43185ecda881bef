"""The same requests through the engine in this process and through a running vLLM.

Greedy tokens must be the same wherever the server's answer is exact. A first difference is excused
only as a tie: both tokens within `TIE` nats under the exact plan, where rounding of numbers
decides. Where soups' coefficients were rounded, every next-token distribution along the answer must
be within the reported bound of the exact plan's, and every certified token must be the exact
plan's.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palate import Library
from palate.core.plan import (
    Plan,
    member_plan,
    output_soup_plan,
    parameter_soup_plan,
    reference_plan,
)
from palate.core.protocols import Request, SamplingParams
from palate.core.seeds import generator_for
from palate.core.types import Completion
from palate.engine.bank import AdapterBank
from palate.engine.logprobs import Scored, row_distributions
from palate.engine.protocol import ExecutionReport, finished
from palate.engine.vllm.client import VllmSettings
from palate.engine.vllm.engine import (
    VllmEngine,
    connect,
    expert_folders_in,
    require_same_models,
)
from palate.models.chat import encode_prompt
from palate.models.load import Base
from research.mixture.plans import mixture_plan

TIE = 2e-3  # nats between two tokens that rounding of numbers may swap
GAP = 1e-3  # nats, of a token's log-probability between two float32 implementations
SHARES = {"base": 0.1, "portfolio": 0.25, "soup": 0.25, "rounded soup": 0.2, "output-soup": 0.1}
NOISE = 1e-5  # of probabilities between two float32 implementations
OPENINGS = (
    "Once upon a time, there was a little girl named Lily.",
    "Tom and his dog went to the park.",
    "One day, a big red ball rolled down the hill.",
    "The sun was warm and the birds",
    "Mia found a small box under the tree.",
    "There was a cat who liked to",
    "Ben was sad because his toy",
    "In the forest, a little bear",
)


@dataclass(frozen=True, eq=False)
class OpenedVllm:
    """A library, and the server that answers from it."""

    opened: Library
    engine: VllmEngine


def open_vllm(folder: Path, settings: VllmSettings, *, rates: Sequence[float] = ()) -> OpenedVllm:
    """The library in `folder` with the server, after both gave the same distributions."""
    opened = Library.load(folder)
    folders = opened.files.expert_folders()
    if settings.server_experts is not None:
        served = expert_folders_in(settings.server_experts)
        folders = {name: served[name] for name in folders}
    engine = connect(settings, opened.base, folders, rates=rates, controllers=opened.controllers)
    require_same_models(engine, opened.bank)
    return OpenedVllm(opened, engine)


@dataclass(frozen=True)
class Served:
    """An answer of the server, and the engine's report of it."""

    completion: Completion
    account: ExecutionReport


@dataclass(frozen=True)
class Asked:
    """A request and the way it is an example of."""

    method: str
    request: Request


@dataclass(frozen=True)
class Compared:
    """What one way's answers came to.

    Attributes:
        method: Which.
        n: Requests.
        n_tokens: Tokens of the server's answers.
        n_equal: Answers with the same tokens throughout.
        n_ties: Answers whose first difference is a tie.
        n_wrong: Answers whose first difference is none, though the server's answer is exact.
        largest_log_prob_gap: Of a token, to the served plan in this process, nats; of answers from
            whole lists or from the server.
        largest_distance: Total variation of a next token between served and exact plan; of pooled
            lists only the change of the taken token's probability is known.
        mean_distance: The same, over all tokens.
        largest_bound: Reported, on the same.
        n_outside: Tokens whose distance is above the reported bound.
        n_certified: Tokens certified to be the exact plan's.
        n_certified_wrong: Of those, how many are not (ties aside).
        n_calls: Requests to the server.
    """

    method: str
    n: int
    n_tokens: int
    n_equal: int
    n_ties: int
    n_wrong: int
    largest_log_prob_gap: float
    largest_distance: float
    mean_distance: float
    largest_bound: float
    n_outside: int
    n_certified: int
    n_certified_wrong: int
    n_calls: int


def requests_of_all_ways(
    *, n: int, n_experts: int, max_tokens: int, step: float, seed: int
) -> list[Asked]:
    """`n` requests: base, members, soups on and off the grid, output soups, mixtures.

    Greedy, but for every second output soup and mixture, whose tokens are drawn here anyway.
    """
    generator = generator_for(seed, "comparison")
    ways = [method for method, share in SHARES.items() for _ in range(round(share * n))]
    ways += ["mixture"] * (n - len(ways))
    found: list[Asked] = []
    for place, method in enumerate(ways):
        is_drawn = method in ("output-soup", "mixture") and place % 2 == 1
        sampling = SamplingParams(temperature=1.0 if is_drawn else 0.0, max_tokens=max_tokens)
        free = generator.uniform(-0.5, 1.0, size=n_experts)
        plan = _plan(method, free, step=step, place=place)
        opening = OPENINGS[place % len(OPENINGS)]
        found.append(Asked(method, Request(opening, plan, sampling, seed=place)))
    return found


def compare(vllm: OpenedVllm, asked: Sequence[Asked]) -> list[Compared]:
    """Both engines' answers to the same requests, way by way."""
    requests = [one.request for one in asked]
    session = vllm.engine.open_session()
    served: list[Served] = []
    for running, completion in finished(session, requests):
        report = session.report(running)
        if report is not None:  # none was aborted
            served.append(Served(completion, report))
    own = vllm.opened.engine.generate(requests)
    rows = [
        _compared(vllm.opened.base, vllm.opened.bank, one, theirs, ours)
        for one, theirs, ours in zip(asked, served, own, strict=True)
    ]
    ways = Counter(one.method for one in asked)
    return [_joined([row for row in rows if row.method == method]) for method in ways]


def failures(found: Sequence[Compared]) -> list[str]:
    """What must not be: one sentence each; empty when the engines agree."""
    sentences: list[str] = []
    for row in found:
        if row.n_wrong:
            sentences.append(f"{row.n_wrong} exact answers of {row.method} have other tokens")
        if row.largest_log_prob_gap > GAP:
            sentences.append(
                f"log-probabilities of {row.method} differ: {row.largest_log_prob_gap}"
            )
        if row.n_outside:
            sentences.append(f"{row.n_outside} tokens of {row.method} are outside the bound")
        if row.n_certified_wrong:
            sentences.append(f"{row.n_certified_wrong} certified tokens of {row.method} are wrong")
    return sentences


def to_json(found: Sequence[Compared]) -> dict[str, Any]:
    """Plain data."""
    return {"ways": [vars(row) for row in found], "failures": failures(found)}


def _plan(method: str, free: Float[np.ndarray, " experts"], *, step: float, place: int) -> Plan:
    n_experts = len(free)
    shares = np.abs(free) / np.abs(free).sum()
    grid = np.rint(free / step) * step if step else free
    plans = {
        "base": lambda: reference_plan(n_experts=n_experts),
        "portfolio": lambda: member_plan(index=place % n_experts, n_experts=n_experts),
        "soup": lambda: parameter_soup_plan(grid.tolist()),
        "rounded soup": lambda: parameter_soup_plan(free.tolist()),
        "output-soup": lambda: output_soup_plan((shares * 0.9 if place % 4 < 2 else free).tolist()),
        "mixture": lambda: mixture_plan(
            experts=range(n_experts), n_experts=n_experts, shares=shares.tolist()
        ),
    }
    return plans[method]()


def _compared(
    base: Base, bank: AdapterBank, asked: Asked, theirs: Served, ours: Completion
) -> Compared:
    tokens, account = theirs.completion.tokens, theirs.account
    item = Scored(tuple(encode_prompt(base, asked.request.prompt)), tokens)
    plan = asked.request.plan.normal_form()
    exact = _pooled(base, bank, plan, item)
    picked = torch.tensor(tokens)
    places = torch.arange(len(tokens))
    said = torch.tensor(theirs.completion.log_probs, dtype=torch.float64)
    lists = torch.tensor(account.list_bounds, dtype=torch.float64)
    as_served = exact
    if len(plan.rows) == 1:
        as_served = _pooled(base, bank, parameter_soup_plan(account.coefficients[0]), item)
        distances = 0.5 * (exact.exp() - as_served.exp()).abs().sum(dim=1)
    else:
        distances = (said.exp() - exact[places, picked].exp()).abs()
    is_whole = float(lists.max()) == 0.0
    gap = float((as_served[places, picked] - said).abs().max()) if is_whole else 0.0
    bounds = lists + (1.0 if account.rounding_bound is None else account.rounding_bound)
    best = exact.max(dim=1).values
    lost = best - exact[places, picked]  # nats behind the exact plan's first token
    is_greedy = asked.request.sampling.temperature == 0.0
    certified = [place for place, holds in enumerate(account.certified) if holds]
    wrong = sum(float(lost[place]) > TIE for place in certified) if is_greedy else 0
    difference = _first_difference(tokens, ours.tokens)
    is_tie = difference is not None and _is_tie(exact, difference, tokens, ours.tokens)
    is_wrong = difference is not None and not is_tie and account.is_exact and is_greedy
    return Compared(
        method=asked.method,
        n=1,
        n_tokens=len(tokens),
        n_equal=int(difference is None),
        n_ties=int(is_tie),
        n_wrong=int(is_wrong),
        largest_log_prob_gap=gap,
        largest_distance=float(distances.max()),
        mean_distance=float(distances.sum()),  # a sum until answers are joined
        largest_bound=float(bounds.max()),
        n_outside=int((distances > bounds + NOISE).sum()),
        n_certified=len(certified),
        n_certified_wrong=wrong,
        n_calls=account.n_calls,
    )


def _joined(rows: Sequence[Compared]) -> Compared:
    def total(name: str) -> int:
        return sum(getattr(row, name) for row in rows)

    def largest(name: str) -> float:
        return max(getattr(row, name) for row in rows)

    return Compared(
        method=rows[0].method,
        n=len(rows),
        n_tokens=total("n_tokens"),
        n_equal=total("n_equal"),
        n_ties=total("n_ties"),
        n_wrong=total("n_wrong"),
        largest_log_prob_gap=largest("largest_log_prob_gap"),
        largest_distance=largest("largest_distance"),
        mean_distance=math.fsum(row.mean_distance for row in rows) / total("n_tokens"),
        largest_bound=largest("largest_bound"),
        n_outside=total("n_outside"),
        n_certified=total("n_certified"),
        n_certified_wrong=total("n_certified_wrong"),
        n_calls=total("n_calls"),
    )


def _pooled(
    base: Base, bank: AdapterBank, plan: Plan, item: Scored
) -> Float[Tensor, "tokens vocab"]:
    """Log-probabilities of the plan along the answer, pooled in float64: a second method."""
    rows = row_distributions(base, bank, plan=plan, item=item).double()
    if plan.pool.kind == "single":
        return rows[0]
    coefficients = torch.tensor(plan.pool.coefficients, dtype=torch.float64)[:, None, None]
    if plan.pool.kind == "linear":
        return (coefficients * rows.exp()).sum(dim=0).log()
    return torch.log_softmax((coefficients * rows).sum(dim=0), dim=-1)


def _first_difference(left: Sequence[int], right: Sequence[int]) -> int | None:
    for place, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return place
    return None if len(left) == len(right) else min(len(left), len(right))


def _is_tie(
    exact: Float[Tensor, "tokens vocab"], place: int, left: Sequence[int], right: Sequence[int]
) -> bool:
    if place >= min(len(left), len(right)):
        return False
    row = exact[place]
    return abs(float(row[left[place]] - row[right[place]])) < TIE
