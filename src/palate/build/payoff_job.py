"""The payoff of a policy, and a table of them, measured in cells by one process or through Ray.

A policy answers fixed prompts; its answers are scored by rewards and priced in KL. All policies
have the same prompts and seeds, so differences between them are paired. KL is summed over the whole
vocabulary along the policy's own answers, which is unbiased and varies less than log-ratios of the
sampled tokens. With several answers to each prompt, the result has every answer's reward and
log-ratio too, from which the policy's slack is estimated.

A cell is one policy on a few prompts: its answers are sampled, scored and priced in KL. Cells hold
the same requests with the same seeds on every worker, so the table does not depend on the number of
workers, not even in its last digits (on processors of one kind). Ray Data retries failed cells.

Source: palm.md, sections 2 and 8; methods/README.md C9.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from palate.build.ray_cluster import gpus_of, require_ray, start_ray
from palate.core.errors import InvalidInputError
from palate.core.files import dump_json, hash_value
from palate.core.plan import Plan, member_plan, reference_plan
from palate.core.progress import progress_of
from palate.core.protocols import Request, SamplingParams
from palate.core.seeds import derive_seed
from palate.core.settings import Settings
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.engine.logprobs import Scored, answer_divergences, answer_log_probs
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.library.policy import Measured
from palate.library.rewards import library_rewards
from palate.models.chat import encode_prompt, format_messages
from palate.models.load import Base
from palate.portfolio.payoffs import Measurements, Payoffs, payoffs_from_measurements
from palate.portfolio.slack import Answers, with_slacks
from palate.rewards.texts import messages_of
from palate.training.rollouts import RewardScores


@dataclass(frozen=True, eq=False)
class PayoffEstimator:
    """How policies are measured."""

    base: Base  # the reference
    prompts: tuple[str, ...]  # prompts as users write them
    reward: RewardScores  # scores of answers
    reward_key: str  # identifies the reward, so that measurements by another are not mixed in
    n_answers: int  # answers to each prompt
    max_tokens: int  # most tokens of an answer
    seed: int  # random seed, the same for all policies
    temperature: float = 1.0  # of the policies and the base: of what is sampled, and of the KL

    def __post_init__(self) -> None:
        """Refuse too few prompts for a standard error."""
        if len(self.prompts) < 4 or self.n_answers < 1:
            raise InvalidInputError(
                f"{len(self.prompts)} prompts with {self.n_answers} answers each cannot price a "
                "policy; give at least four prompts and one answer."
            )

    @property
    def fingerprint(self) -> str:
        """Hash of everything a measurement depends on but the policy."""
        return hash_value(
            {
                "base": self.base.fingerprint,
                "prompts": list(self.prompts),
                "reward": self.reward_key,
                "n_answers": self.n_answers,
                "has_log_ratios": self.n_answers > 1,
                "max_tokens": self.max_tokens,
                "seed": self.seed,
                **({"temperature": self.temperature} if self.temperature != 1.0 else {}),
                **({"dtype": self.base.dtype} if self.base.dtype != "float32" else {}),
            }
        )

    def measure(self, plan: Plan, bank: AdapterBank) -> Measured:
        """The plan's answers, scored and priced."""
        prompts = [prompt for prompt in self.prompts for _ in range(self.n_answers)]
        sampling = SamplingParams(temperature=self.temperature, max_tokens=self.max_tokens)
        requests = [
            Request(
                format_messages(self.base, messages_of(prompt)),
                plan,
                sampling,
                seed=derive_seed(self.seed, "meter", prompt, place % self.n_answers),
            )
            for place, prompt in enumerate(prompts)
        ]
        answers = LocalEngine(self.base, bank).generate(requests)
        texts = [answer.text for answer in answers]
        rewards = self.reward.score(prompts, texts)
        items = [
            Scored(tuple(encode_prompt(self.base, request.prompt)), answer.tokens)
            for request, answer in zip(requests, answers, strict=True)
        ]
        kl = self._summed(answer_divergences, plan, bank, items).clip(min=0.0)  # rounding only
        shape = (len(self.prompts), self.n_answers)
        grouped = [tuple(texts[k : k + shape[1]]) for k in range(0, len(texts), shape[1])]
        each = np.asarray(rewards, dtype=np.float64).reshape(*shape, -1)
        single = None
        if self.n_answers > 1:
            reference = reference_plan(n_experts=bank.n_experts)
            own = self._summed(answer_log_probs, plan, bank, items)
            base = self._summed(answer_log_probs, reference, bank, items)
            single = Answers(each, (own - base).reshape(shape))
        kl = kl.reshape(shape).mean(axis=1)
        return Measured(rewards=each.mean(axis=1), kl=kl, texts=tuple(grouped), answers=single)

    def _summed(
        self,
        score: Callable[..., Sequence[Tensor]],
        plan: Plan,
        bank: AdapterBank,
        items: Sequence[Scored],
    ) -> Float[np.ndarray, " answers"]:
        """Sum over the tokens of every answer, nats."""
        plans = [plan] * len(items)
        tokens = score(self.base, bank, plans=plans, items=items, temperature=self.temperature)
        return np.array([float(terms.double().sum()) for terms in tokens])


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


class CellWorker:
    """Opens the library once and measures cells."""

    def __init__(self, folder: str, settings: dict[str, Any]) -> None:
        """Load base, experts and rewards."""
        self._settings = s = PayoffJobSettings.model_validate(settings)
        self._opened = Library.load(Path(folder), base=s.base, device=s.device, dtype=s.dtype)
        self._reward = library_rewards(self._opened.files)

    def measure(self, cell: Cell) -> Measured:
        """The policy's answers to the cell's prompts, scored and priced."""
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
        return estimator.measure(plan, self._opened.bank)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row of a Ray dataset: a cell in, its payoff out, both as JSON (exact floats)."""
        measured = self.measure(json.loads(row["cell"]))
        return {"place": row["place"], "payoff": dump_json(measured.to_json(), indent=None)}


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
        rewards=np.array([np.concatenate([cell.rewards for cell in row]) for row in per_policy]),
        kl=np.array([np.concatenate([cell.kl for cell in row]) for row in per_policy]),
        beta=settings.beta or manifest.beta,
        preferences=np.array(
            [unknown, *(unknown if one.is_signed else one.vector() for one in anchors)]
        ),
    )
    payoffs = with_slacks(
        payoffs_from_measurements(measurements), [_answers(row) for row in per_policy]
    )
    answers = {
        policy: [list(texts) for cell in row for texts in cell.texts]
        for policy, row in zip(policies, per_policy, strict=True)
    }
    return PayoffRun(payoffs, measurements, answers, len(cells))


def _answers(cells: Sequence[Measured]) -> Answers | None:
    """One policy's answers one by one, where there are several to each prompt."""
    parts = [cell.answers for cell in cells if cell.answers is not None]
    if not parts:
        return None
    rewards, log_ratios = [one.rewards for one in parts], [one.log_ratios for one in parts]
    return Answers(np.concatenate(rewards), np.concatenate(log_ratios))


def _here(folder: Path, cells: list[Cell], settings: PayoffJobSettings) -> list[Measured]:
    worker = CellWorker(str(folder), settings.model_dump())
    payoffs: list[Measured] = []
    with progress_of("cells of the payoff table") as report:
        for cell in cells:
            payoffs.append(worker.measure(cell))
            report(len(payoffs), len(cells))
    return payoffs


def _through_ray(folder: Path, cells: list[Cell], settings: PayoffJobSettings) -> list[Measured]:
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
    return [Measured.from_json(json.loads(row["payoff"])) for row in ordered]
