"""Oracles with models: policies from trained experts, priced by the library's rewards.

Three ways to make a policy for a preference, behind the one protocol of
`palate.portfolio.oracle.Oracle`:

    trained     an expert trained for it, on the same rollouts relabelled
    decoding    multi-objective decoding: the objectives' own experts pooled log-linearly, with the
                shares as coefficients; nothing is trained beyond them, one pass per active expert
    soup        the same experts added as parameters with the same coefficients: one pass

A policy that was made or measured before is read from the library, so a search can resume.

Source:
    palm.md section 2; decoding: Shi et al. 2024, arXiv 2406.18853; soup: arXiv 2306.04488.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from palate.build.builder import Builder
from palate.build.payoff_job import PayoffEstimator
from palate.build.run_file import OracleKind
from palate.core.files import hash_value
from palate.core.simplex import require_simplex
from palate.engine.bank import AdapterBank
from palate.library.policy import BASE, Measured, Policy, PolicyFile, load_policy, save_policy
from palate.portfolio.payoffs import Measurements, Payoffs, payoffs_from_measurements
from palate.portfolio.slack import Answers, with_slacks
from palate.training.anchors import Anchor, objective_anchors

SAME = 1e-6  # L1; nearer preferences are one
_LONGEST = 54  # letters of a preference's name
BASE_POLICY = Policy(BASE, "base", None, {})

Shares = Float[ndarray, " objectives"]
Make = Callable[[Shares], Policy]


@dataclass(frozen=True, eq=False)
class Prices:
    """Measurements of policies, stored in a folder with one file per policy."""

    builder: Builder
    estimator: PayoffEstimator
    folder: Path

    def of(self, policy: Policy) -> Measured:
        """The policy's measurement, from its file or made now."""
        path = self.folder / f"{policy.name}.json"
        manifest = self.builder.library.manifest
        experts = {name: manifest.expert(name).key for name in policy.coefficients}
        key = hash_value(
            {
                "meter": self.estimator.fingerprint,
                "method": policy.method,
                "coefficients": dict(policy.coefficients),
                "experts": experts,
            }
        )
        known = load_policy(path) if path.is_file() else None
        if known is not None and known.key == key:
            return known.measured
        measured = self._measured(policy)
        save_policy(path, PolicyFile(policy, measured, key, experts))
        return measured

    def _measured(self, policy: Policy) -> Measured:
        library = self.builder.library
        names = list(policy.coefficients)
        bank = AdapterBank.load(
            self.builder.base, {name: library.expert_folder(name) for name in names}
        )
        try:
            return self.estimator.measure(policy.plan(names), bank)
        finally:
            bank.close()


@dataclass(eq=False)
class ModelOracle:
    """An oracle whose policies are made of models; see the module's text."""

    make: Make  # from a preference to a policy; the same preference gives the same policy
    prices: Prices  # measurements of policies
    part: Int[ndarray, " prompts"] | None = None  # of prompts for the payoffs; `None` takes all
    beta: float | None = None  # price of a nat in the payoffs; `None` is the one of training
    policies: dict[str, Policy] = field(default_factory=dict)  # policies so far, by name

    @property
    def objectives(self) -> tuple[str, ...]:
        """The library's objectives."""
        return self.prices.builder.settings.objective_names

    def policy(self, preference: Shares) -> str:
        """Name of the policy made for this preference."""
        policy = self.make(np.asarray(preference, dtype=np.float64))
        self.policies[policy.name] = policy
        return policy.name

    def payoffs(self, policies: Sequence[str]) -> Payoffs:
        """Payoffs of these policies on the oracle's part of the prompts."""
        measurements = self.measurements(policies)
        if self.part is not None:
            measurements = some_prompts(measurements, self.part)
        return payoffs_from_measurements(measurements)

    def measurements(self, policies: Sequence[str]) -> Measurements:
        """Measurements of these policies on all prompts."""
        rows = [self.policies[name] for name in policies]
        measured = [self.prices.of(policy) for policy in rows]
        unknown = (np.nan,) * len(self.objectives)
        return Measurements(
            objectives=self.objectives,
            policies=tuple(policies),
            rewards=np.array([one.rewards for one in measured]),
            kl=np.array([one.kl for one in measured]),
            beta=self.beta or self.prices.builder.settings.training.beta,
            preferences=np.array([policy.preference or unknown for policy in rows]),
        )

    def with_slacks(
        self, payoffs: Payoffs, *, part: Int[ndarray, " prompts"], confidence: float
    ) -> Payoffs:
        """The payoffs with upper bounds of the policies' slacks from their answers.

        Policies are this oracle's, `part` indices of prompts; all bounds hold with the confidence.
        """
        every = (self.prices.of(self.policies[name]).answers for name in payoffs.table.policies)
        answers = [
            None if one is None else Answers(one.rewards[part], one.log_ratios[part])
            for one in every
        ]
        return with_slacks(payoffs, answers, confidence=confidence)


def some_prompts(measurements: Measurements, part: Int[ndarray, " prompts"]) -> Measurements:
    """The same measurements on some of the prompts."""
    return replace(measurements, rewards=measurements.rewards[:, part], kl=measurements.kl[:, part])


def maker(kind: OracleKind, builder: Builder) -> Make:
    """The function from preferences to policies of this kind."""
    if kind == "trained":
        return partial(_trained, builder)
    return partial(_combined, kind, builder)


def _trained(builder: Builder, preference: Shares) -> Policy:
    shares = require_simplex(preference)
    anchor = _anchor_for(builder, shares)
    builder.make(anchor, title="for the portfolio")
    return Policy(anchor.name, "expert", anchor.direction, {anchor.name: 1.0})


def _combined(kind: Literal["decoding", "soup"], builder: Builder, preference: Shares) -> Policy:
    """The objectives' own experts, with the shares as coefficients."""
    shares = require_simplex(preference)
    units = objective_anchors(builder.settings.objective_names)
    experts = [_anchor_for(builder, unit.vector()) for unit in units]
    for expert in experts:
        builder.make(expert, title="for one objective")
    coefficients = {
        expert.name: float(share)
        for expert, share in zip(experts, shares, strict=True)
        if share != 0.0
    }
    name = f"{kind}-{preference_name(shares, builder.settings.objective_names)}"
    return Policy(name, kind, tuple(shares.tolist()), coefficients)


def _anchor_for(builder: Builder, shares: Shares) -> Anchor:
    """The anchor of an expert that is there for this preference, or a new one."""
    objectives = builder.settings.objective_names
    known = [record.anchor for record in builder.library.manifest.experts]
    for anchor in (*known, *objective_anchors(objectives)):
        if np.abs(anchor.vector() - shares).sum() <= SAME:
            return anchor
    name = preference_name(shares, objectives)
    while name in {anchor.name for anchor in known}:
        name += "x"  # another preference that reads the same to three digits
    return Anchor(name, objectives, tuple(float(share) for share in shares))


def preference_name(shares: Shares, objectives: Sequence[str]) -> str:
    """Percentages, as in `concise-66.7_expert-33.3`; thousandths, `w-667-333-000`, if too long."""
    parts = [
        f"{name}-{100 * share:.1f}".removesuffix(".0")
        for name, share in zip(objectives, shares.tolist(), strict=True)
        if round(1000 * share)
    ]
    name = "_".join(parts)
    if len(name) <= _LONGEST:
        return name
    return "w-" + "-".join(f"{round(1000 * share):03d}" for share in shares)
