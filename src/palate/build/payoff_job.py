"""A payoff table measured in cells, on one process or on many through Ray.

A cell is one policy on a few prompts: its answers are sampled, scored and priced in KL. Cells hold
the same requests with the same seeds on every worker, so the table does not depend on the number of
workers, not even in its last digits (on processors of one kind). Ray Data retries failed cells.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from palate.build.payoff_estimator import PayoffEstimator
from palate.build.ray_cluster import gpus_of, require_ray, start_ray
from palate.core.errors import InvalidInputError
from palate.core.plan import member_plan, reference_plan
from palate.core.progress import progress_of
from palate.core.settings import Settings
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.library.rewards import library_rewards
from palate.portfolio.payoffs import Measurements, Payoffs, payoffs_from_measurements
from palate.portfolio.slack import Answers, with_slacks

BASE = "base"
MIN_CHUNK = 4  # prompts of a cell, as the estimator asks


class PayoffJobSettings(Settings):
    """Size of a measurement, and its workers."""

    n_answers: int = Field(default=1, ge=1)  # per policy and prompt; two or more bound every slack
    max_tokens: int = Field(default=64, ge=1)  # most tokens of an answer
    chunk_prompts: int = Field(default=8, ge=MIN_CHUNK)  # of a cell; the last digits depend on it
    seed: int = 0  # random seed, the same for all policies
    temperature: float | None = Field(default=None, gt=0)  # `None` is the library's
    beta: float | None = Field(default=None, gt=0)  # price of a nat; `None` is the library's
    workers: int = Field(default=0, ge=0)  # ray workers; 0 measures in this process, without Ray
    address: str | None = None  # of a running Ray cluster; `None` starts one, a CPU for each worker
    base: str | None = None  # where the base is now, if it has moved
    device: str = "cpu"  # a torch device; with `cuda` every Ray worker has a GPU of its own
    dtype: str = "float32"  # type of the base's parameters


Cell = tuple[str, Sequence[str]]  # a policy and a few prompts
Payoff = dict[str, Any]  # the fields of `Measured` as lists


class CellWorker:
    """Opens the library once and measures cells."""

    def __init__(self, folder: str, settings: dict[str, Any]) -> None:
        """Load base, experts and rewards."""
        self._settings = s = PayoffJobSettings.model_validate(settings)
        self._opened = Library.load(Path(folder), base=s.base, device=s.device, dtype=s.dtype)
        self._reward = library_rewards(self._opened.files)

    def measure(self, cell: Cell) -> Payoff:
        """Rewards, KL and texts of the policy's answers to the cell's prompts."""
        policy, prompts = cell
        names = self._opened.bank.names
        if policy == BASE:
            plan = reference_plan(n_experts=len(names))
        else:
            plan = member_plan(index=names.index(policy), n_experts=len(names))
        s = self._settings
        estimator = PayoffEstimator(
            base=self._opened.base,
            prompts=tuple(prompts),
            reward=self._reward,
            reward_key="cell",
            n_answers=s.n_answers,
            max_tokens=s.max_tokens,
            seed=s.seed,
            temperature=s.temperature or self._opened.sampling.temperature,
        )
        measured = estimator.measure(plan, self._opened.bank)
        each = measured.answers
        return {
            "rewards": measured.rewards.tolist(),
            "kl": measured.kl.tolist(),
            "texts": [list(row) for row in measured.texts],
            "answer_rewards": [] if each is None else each.rewards.tolist(),
            "log_ratios": [] if each is None else each.log_ratios.tolist(),
        }

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row of a Ray dataset: a cell in, its payoff out, both as JSON (exact floats)."""
        payoff = self.measure(json.loads(row["cell"]))
        return {"place": row["place"], "payoff": json.dumps(payoff)}


@dataclass(frozen=True)
class PayoffRun:
    """A table with paired standard errors, and the answers by policy and prompt behind it."""

    payoffs: Payoffs
    measurements: Measurements
    answers: dict[str, list[list[str]]]
    n_cells: int


def measure_payoffs(folder: Path, prompts: Sequence[str], settings: PayoffJobSettings) -> PayoffRun:
    """The payoff table of the base and all experts of a library on these prompts.

    Raises:
        InvalidInputError: fewer than four prompts, or one twice.
        MissingExtraError: there are workers and Ray is not installed.
    """
    if len(prompts) < MIN_CHUNK or len(set(prompts)) < len(prompts):
        raise InvalidInputError(
            f"{len(prompts)} prompts ({len(set(prompts))} different) cannot price policies; give "
            "at least four, each once."
        )
    if settings.workers:
        require_ray()
    manifest = LibraryFolder.open(folder).manifest  # workers open the base
    policies = (BASE, *manifest.expert_names)
    size = settings.chunk_prompts
    chunks = [tuple(prompts[k : k + size]) for k in range(0, len(prompts), size)]
    if len(chunks) > 1 and len(chunks[-1]) < MIN_CHUNK:  # too small for the estimator
        last = chunks.pop()
        chunks[-1] = (*chunks[-1], *last)
    cells: list[Cell] = [(policy, chunk) for policy in policies for chunk in chunks]
    run = _through_ray if settings.workers else _here
    payoffs_of_cells = run(folder, cells, settings)
    n = len(chunks)
    per_policy = [payoffs_of_cells[k * n : (k + 1) * n] for k in range(len(policies))]
    anchors = [manifest.expert(name).anchor for name in manifest.expert_names]
    unknown = np.full(len(manifest.objective_names), np.nan)  # where no preference describes one
    measurements = Measurements(
        objectives=manifest.objective_names,
        policies=policies,
        rewards=np.array([[r for cell in row for r in cell["rewards"]] for row in per_policy]),
        kl=np.array([[v for cell in row for v in cell["kl"]] for row in per_policy]),
        beta=settings.beta or manifest.beta,
        preferences=np.array(
            [unknown, *(unknown if one.is_signed else one.vector() for one in anchors)]
        ),
    )
    payoffs = with_slacks(
        payoffs_from_measurements(measurements), [_answers(row) for row in per_policy]
    )
    answers = {
        policy: [texts for cell in row for texts in cell["texts"]]
        for policy, row in zip(policies, per_policy, strict=True)
    }
    return PayoffRun(payoffs, measurements, answers, len(cells))


def _answers(cells: Sequence[Payoff]) -> Answers | None:
    """One policy's answers one by one, where there are several to each prompt."""
    rewards = [row for cell in cells for row in cell["answer_rewards"]]
    log_ratios = [row for cell in cells for row in cell["log_ratios"]]
    return Answers(np.array(rewards), np.array(log_ratios)) if rewards else None


def _here(folder: Path, cells: list[Cell], settings: PayoffJobSettings) -> list[Payoff]:
    worker = CellWorker(str(folder), settings.model_dump())
    payoffs: list[Payoff] = []
    with progress_of("cells of the payoff table") as report:
        for cell in cells:
            payoffs.append(worker.measure(cell))
            report(len(payoffs), len(cells))
    return payoffs


def _through_ray(folder: Path, cells: list[Cell], settings: PayoffJobSettings) -> list[Payoff]:
    ray = start_ray(n_cpus=settings.workers, address=settings.address)
    data: Any = import_module("ray.data")
    try:
        n_gpus = gpus_of(
            settings.device, n=settings.workers, each=1.0, address=settings.address, ray=ray
        )
        items = [{"place": place, "cell": json.dumps(cell)} for place, cell in enumerate(cells)]
        dataset = data.from_items(items, override_num_blocks=len(items))
        rows = dataset.map(
            CellWorker,
            fn_constructor_args=(str(folder.resolve()), settings.model_dump()),
            compute=data.ActorPoolStrategy(size=settings.workers),
            num_cpus=1,
            num_gpus=n_gpus or None,
        ).take_all()
    finally:
        ray.shutdown()
    ordered = sorted(rows, key=lambda row: row["place"])
    return [json.loads(row["payoff"]) for row in ordered]
