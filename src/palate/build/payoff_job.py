"""`palate scale payoff`: a payoff table measured in cells, on one process or on many through Ray.

A cell is one policy on a few prompts: its answers are sampled, scored and priced in KL. Cells hold
the same requests with the same seeds whoever runs them, so the table does not depend on the number
of workers, not even in its last digits (on processors of one kind).

Ray Data hands out the cells and runs a failed one again; nothing here is a cluster of our own.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field

from palate.build.payoff_estimator import PayoffEstimator
from palate.build.ray_cluster import gpus_of, require_ray, start_ray
from palate.core.errors import InvalidInputError
from palate.core.plan import member_plan, reference_plan
from palate.core.progress import progress_of
from palate.core.settings import Settings
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.library.manifest import Manifest
from palate.library.rewards import library_rewards
from palate.portfolio.payoffs import Measurements, Payoffs, payoffs_from_measurements
from palate.portfolio.slack import Answers, with_slacks

BASE = "base"
MIN_CHUNK = 4  # prompts of a cell, as the estimator asks


class PayoffJobSettings(Settings):
    """What is measured, and on how many workers.

    Attributes:
        n_answers: To each prompt, by each policy; two or more also tell every policy's slack.
        max_tokens: Most tokens of an answer.
        chunk_prompts: Prompts of a cell; a part of the result's last digits.
        seed: The same for all policies.
        beta: Price of a nat; `None` is the library's.
        workers: Ray workers; 0 measures in this process, without Ray.
        address: Of a running Ray cluster; `None` starts one here with as many CPUs as workers.
        base: Where the base is now, if it has moved.
        device: As torch names devices; with `cuda` every Ray worker has a GPU of its own.
        dtype: Of the base's parameters.
    """

    n_answers: int = Field(default=1, ge=1)
    max_tokens: int = Field(default=64, ge=1)
    chunk_prompts: int = Field(default=8, ge=MIN_CHUNK)
    seed: int = 0
    beta: float | None = Field(default=None, gt=0)
    workers: int = Field(default=0, ge=0)
    address: str | None = None
    base: str | None = None
    device: str = "cpu"
    dtype: str = "float32"


Found = dict[
    str, Any
]  # rewards `[prompts][objectives]`, kl `[prompts]`, texts and log_ratios `[prompts][answers]`


@dataclass(frozen=True)
class Cell:
    """One policy on a few prompts."""

    policy: str
    prompts: tuple[str, ...]


class CellWorker:
    """Opens the library once and measures cells."""

    def __init__(self, folder: str, settings: dict[str, Any]) -> None:
        """Load base, experts and rewards."""
        self._settings = s = PayoffJobSettings.model_validate(settings)
        self._opened = Library.load(Path(folder), base=s.base, device=s.device, dtype=s.dtype)
        self._reward = library_rewards(self._opened.files)

    def measure(self, cell: Cell) -> Found:
        """What the policy's answers to the cell's prompts are worth."""
        names = self._opened.bank.names
        if cell.policy == BASE:
            plan = reference_plan(n_experts=len(names))
        else:
            plan = member_plan(index=names.index(cell.policy), n_experts=len(names))
        estimator = PayoffEstimator(
            base=self._opened.base,
            prompts=cell.prompts,
            reward=self._reward,
            reward_key="cell",
            n_answers=self._settings.n_answers,
            max_tokens=self._settings.max_tokens,
            seed=self._settings.seed,
        )
        found = estimator.measure(plan, self._opened.bank)
        each = found.answers
        return {
            "rewards": found.rewards.tolist(),
            "kl": found.kl.tolist(),
            "texts": [list(row) for row in found.texts],
            "answer_rewards": [] if each is None else each.rewards.tolist(),
            "log_ratios": [] if each is None else each.log_ratios.tolist(),
        }

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row of a Ray dataset: the cell in, what was found out, both as JSON (exact floats)."""
        asked = json.loads(row["cell"])
        found = self.measure(Cell(asked["policy"], tuple(asked["prompts"])))
        return {"place": row["place"], "found": json.dumps(found)}


@dataclass(frozen=True)
class PayoffRun:
    """A measured table and the answers it rests on.

    Attributes:
        payoffs: With paired standard errors.
        measurements: Prompt by prompt.
        answers: By policy and prompt.
        n_cells: Pieces of work.
    """

    payoffs: Payoffs
    measurements: Measurements
    answers: dict[str, list[list[str]]]
    n_cells: int


def measure_payoffs(folder: Path, prompts: Sequence[str], settings: PayoffJobSettings) -> PayoffRun:
    """The payoff table of the base and all experts of a library on these prompts.

    Raises:
        InvalidInputError: fewer than four prompts, or one twice.
        MissingExtraError: workers are asked for and Ray is not installed.
    """
    if len(prompts) < MIN_CHUNK or len(set(prompts)) < len(prompts):
        raise InvalidInputError(
            f"{len(prompts)} prompts ({len(set(prompts))} different) cannot price policies; give "
            "at least four, each once."
        )
    if settings.workers:
        require_ray()
    manifest = LibraryFolder.open(folder).manifest  # whoever measures opens the base
    policies = (BASE, *manifest.expert_names)
    chunks = _chunks(prompts, settings.chunk_prompts)
    cells = [Cell(policy, chunk) for policy in policies for chunk in chunks]
    run: Callable[[Path, list[Cell], PayoffJobSettings], list[Found]]
    run = _through_ray if settings.workers else _here
    found = run(folder, cells, settings)
    n = len(chunks)
    per_policy = [found[k * n : (k + 1) * n] for k in range(len(policies))]
    measurements = Measurements(
        objectives=manifest.objective_names,
        policies=policies,
        rewards=np.array([[r for cell in row for r in cell["rewards"]] for row in per_policy]),
        kl=np.array([[v for cell in row for v in cell["kl"]] for row in per_policy]),
        beta=settings.beta or manifest.beta,
        preferences=_preferences(manifest),
    )
    payoffs = with_slacks(
        payoffs_from_measurements(measurements), [_answers(row) for row in per_policy]
    )
    answers = {
        policy: [texts for cell in row for texts in cell["texts"]]
        for policy, row in zip(policies, per_policy, strict=True)
    }
    return PayoffRun(payoffs, measurements, answers, len(cells))


def _preferences(manifest: Manifest) -> Float[ndarray, "policies objectives"]:
    """What the base and the experts were made for; NaN where no preference describes it."""
    anchors = [manifest.expert(name).anchor for name in manifest.expert_names]
    unknown = np.full(len(manifest.objective_names), np.nan)
    return np.array([unknown, *(unknown if a.is_signed else a.vector() for a in anchors)])


def _answers(cells: Sequence[Found]) -> Answers | None:
    """One policy's answers one by one, where there are several to each prompt."""
    rewards = [row for cell in cells for row in cell["answer_rewards"]]
    if not rewards:
        return None
    return Answers(
        np.array(rewards), np.array([row for cell in cells for row in cell["log_ratios"]])
    )


def _chunks(prompts: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Prompts in order; a last chunk that is too small for the estimator joins the one before."""
    found = [tuple(prompts[k : k + size]) for k in range(0, len(prompts), size)]
    if len(found) > 1 and len(found[-1]) < MIN_CHUNK:
        last = found.pop()
        found[-1] = (*found[-1], *last)
    return found


def _here(folder: Path, cells: list[Cell], settings: PayoffJobSettings) -> list[Found]:
    worker = CellWorker(str(folder), settings.model_dump())
    found: list[Found] = []
    with progress_of("cells of the payoff table") as report:
        for cell in cells:
            found.append(worker.measure(cell))
            report(len(found), len(cells))
    return found


def _through_ray(folder: Path, cells: list[Cell], settings: PayoffJobSettings) -> list[Found]:
    ray = start_ray(n_cpus=settings.workers, address=settings.address)
    data: Any = import_module("ray.data")
    try:
        n_gpus = gpus_of(
            settings.device, n=settings.workers, each=1.0, address=settings.address, ray=ray
        )
        items = [
            {"place": place, "cell": json.dumps({"policy": c.policy, "prompts": list(c.prompts)})}
            for place, c in enumerate(cells)
        ]
        cells_there = data.from_items(items, override_num_blocks=len(items))
        rows = cells_there.map(
            CellWorker,
            fn_constructor_args=(str(folder.resolve()), settings.model_dump()),
            compute=data.ActorPoolStrategy(size=settings.workers),
            num_cpus=1,
            num_gpus=n_gpus or None,
        ).take_all()
    finally:
        ray.shutdown()
    ordered = sorted(rows, key=lambda row: row["place"])
    return [json.loads(row["found"]) for row in ordered]
