"""Grow a portfolio: train experts where its certificate needs them.

The search makes policies one by one, where the certificate is weakest (or all of PALM's grid),
until nobody loses more than the tolerance, the budget is spent, or more policies would prove
nothing because the values are too noisy. Prompts are split once: one half guides the search and
the selection of members, the other half certifies, so that the certificate is not about numbers
that were selected for being high. The library gets

    policies/NAME.json     every policy with its measurement
    payoff.json            the table that members were chosen on
    payoff-report.json     the same policies on the other half of the prompts
    portfolio.json         members and certificate; `palate portfolio verify` checks it

The next run reads these files and makes only the missing parts. A policy for a preference is made
in one of three ways, behind `palate.portfolio.adaptive.Oracle`, priced by the library's rewards:

    trained     an expert trained for it, on the same rollouts relabelled
    decoding    multi-objective decoding: the objectives' own experts pooled log-linearly, with the
                shares as coefficients; nothing is trained beyond them, one pass per active expert
    soup        the same experts added as parameters with the same coefficients, times the strength
                that the run file states, if it does: one pass

Source: palm.md section 2; decoding: Shi et al. 2024, arXiv 2406.18853; soup: arXiv 2306.04488.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from palate.build.builder import Builder
from palate.build.payoff_job import PayoffEstimator
from palate.build.run_file import (
    OracleKind,
    PortfolioSettings,
    RunSettings,
    read_prompts,
    run_prompts,
)
from palate.core.errors import InvalidInputError
from palate.core.files import hash_value
from palate.core.progress import progress_of
from palate.core.seeds import derive_seed, generator_for
from palate.core.simplex import require_simplex
from palate.engine.bank import AdapterBank
from palate.library.policy import BASE, Measured, Policy, PolicyFile, load_policy, save_policy
from palate.library.portfolio import POLICIES, PORTFOLIO
from palate.portfolio.adaptive import SearchSettings, steps
from palate.portfolio.certificate import loss_sentence
from palate.portfolio.choice import PortfolioRequest, choose
from palate.portfolio.gap import additive_gap
from palate.portfolio.grid import ratio_grid_size
from palate.portfolio.palm import PalmSettings, palm
from palate.portfolio.payoff_file import save_payoffs
from palate.portfolio.payoffs import Measurements, Payoffs, payoffs_from_measurements
from palate.portfolio.record import Record, save_record
from palate.portfolio.slack import Answers, with_slacks
from palate.portfolio.terms import Terms
from palate.training.anchors import Anchor, make_anchors, objective_anchors

SAME = 1e-6  # L1; nearer preferences are one
_LONGEST = 54  # letters of a preference's name
BASE_POLICY = Policy(BASE, "base", None, {})

Shares = Float[np.ndarray, " objectives"]
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
        library, names = self.builder.library, list(policy.coefficients)
        folders = {name: library.expert_folder(name) for name in names}
        with closing(AdapterBank.load(self.builder.base, folders)) as bank:
            return self.estimator.measure(policy.plan(names), bank)


@dataclass(eq=False)
class ModelOracle:
    """An oracle whose policies are made of models; see the module's text."""

    make: Make  # from a preference to a policy; the same preference gives the same policy
    prices: Prices  # measurements of policies
    part: Int[np.ndarray, " prompts"] | None = None  # of prompts for the payoffs; `None` takes all
    beta: float | None = None  # price of a nat in the payoffs; `None` is the one of training
    policies: dict[str, Policy] = field(default_factory=dict)  # policies so far, by name

    @property
    def objectives(self) -> tuple[str, ...]:
        """The library's objectives."""
        return self.prices.builder.settings.objective_names

    def policy(self, preference: Shares) -> str:
        """Name of the policy made for this preference."""
        policy = self.make(np.asarray(preference, dtype=np.float64))
        while self.policies.get(policy.name, policy).preference != policy.preference:
            policy = replace(policy, name=f"{policy.name}x")  # one that reads the same
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
        self, payoffs: Payoffs, *, part: Int[np.ndarray, " prompts"], confidence: float
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


def some_prompts(measurements: Measurements, part: Int[np.ndarray, " prompts"]) -> Measurements:
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
    """The objectives' own experts, with the shares as coefficients, a soup's times its strength."""
    shares = require_simplex(preference)
    stated = builder.settings.calibration.strength if kind == "soup" else None
    strength = stated or 1.0
    units = objective_anchors(builder.settings.objective_names)
    experts = [_anchor_for(builder, unit.vector()) for unit in units]
    for expert in experts:
        builder.make(expert, title="for one objective")
    coefficients = {
        expert.name: strength * float(share)
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


PAYOFF, PAYOFF_REPORT = "payoff.json", "payoff-report.json"
LEAST_PROMPTS = 4  # two for each half's standard errors


@dataclass(frozen=True, eq=False)
class Grown:
    """A portfolio in its library."""

    record: Record  # members and certificate
    policies: tuple[str, ...]  # every policy in the table, oldest first
    experts: tuple[str, ...]  # names of the experts that the policies are made of
    stop: str  # why the search made no more: `tolerance`, `calls`, `visited`, `noise` or `grid`
    search_gap: float | None  # bound on the loss with all its policies; `None` for a grid

    def to_json(self) -> dict[str, Any]:
        """The outcome as plain data."""
        certificate = self.record.certified.certificate
        values, members = self.record.payoffs.table.values, self.record.indices()
        is_whole = len(members) == len(values)  # then nothing is lost by the estimates
        return {
            "members": list(self.record.members),
            "policies": list(self.policies),
            "stop": self.stop,
            "search_gap": self.search_gap,
            "statement": loss_sentence(certificate, n_policies=self.record.payoffs.n_policies),
            "additive_gap": certificate.additive_gap,
            "estimated_gap": None
            if is_whole
            else additive_gap(members=values[members], rows=values).value,
            "kind": certificate.kind,
            "confidence": certificate.confidence,
            "worst_preference": list(certificate.worst_preference),
        }


def grow(builder: Builder, settings: PortfolioSettings) -> Grown:
    """Make policies, choose members, certify them, and write the library's portfolio files.

    Raises:
        InvalidInputError: the budget is below the number of objectives or the grid's size, or
            there are too few prompts.
        NotCertifiedError: a slack is given and the table does not carry it.
    """
    require_growable(builder.settings, settings)
    prompts = _prompts(builder.settings, settings)
    folder = builder.library.folder
    estimator = PayoffEstimator(
        base=builder.base,
        prompts=prompts,
        reward=builder.reward,
        reward_key=builder.reward_key,
        n_answers=settings.n_answers,
        max_tokens=builder.settings.rollouts.max_completion_length,
        seed=derive_seed(builder.settings.seed, "portfolio"),
        temperature=builder.settings.calibration.temperature,
    )
    prices = Prices(builder, estimator, folder / POLICIES)
    oracle = ModelOracle(maker(settings.oracle, builder), prices, beta=settings.beta)
    order = generator_for(builder.settings.seed, "portfolio halves").permutation(len(prompts))
    middle = len(prompts) // 2
    first, second = np.sort(order[:middle]), np.sort(order[middle:])  # choose, then certify
    names, stop, gap = _searched(replace(oracle, part=first), settings)
    names = _with_known(oracle, builder, settings, names)
    measurements = oracle.measurements(names)
    table, reported = (
        payoffs_from_measurements(some_prompts(measurements, part)) for part in (first, second)
    )
    if settings.slack == "estimate":
        sure = (1.0 + settings.confidence) / 2.0  # half of the doubt that is allowed
        table = oracle.with_slacks(table, part=first, confidence=sure)
        reported = oracle.with_slacks(reported, part=second, confidence=sure)
    tolerance = settings.tolerance if settings.size is None else 0.0
    slack = "listed" if settings.slack == "estimate" else settings.slack
    record = choose(
        without_errors(table),
        request=PortfolioRequest(size=settings.size, delta=tolerance),
        terms=Terms(confidence=settings.confidence, slack=slack, criterion="additive"),
        report=reported,
    )
    save_payoffs(folder / PAYOFF, table)
    save_payoffs(folder / PAYOFF_REPORT, reported)
    save_record(folder / PORTFOLIO, record)
    experts = dict.fromkeys(
        expert for name in names for expert in oracle.policies[name].coefficients
    )
    return Grown(record, names, tuple(experts), stop, gap)


def without_errors(payoffs: Payoffs) -> Payoffs:
    """The estimates, taken as exact: to choose by, never to certify by."""
    table = replace(payoffs.table, standard_errors=np.zeros_like(payoffs.table.values))
    return replace(payoffs, table=table, level_errors=np.zeros_like(payoffs.level_errors))


def require_growable(run: RunSettings, settings: PortfolioSettings) -> None:
    """Raise `InvalidInputError`, before any training, when budget or prompts do not suffice."""
    n_objectives = len(run.objectives)
    if settings.max_policies < n_objectives:
        raise InvalidInputError(
            f"portfolio.max_policies={settings.max_policies} is below the {n_objectives} "
            "objectives; every objective alone needs a policy before anything can be certified."
        )
    if settings.search == "grid":
        epsilon, delta = settings.grid_tolerances(n_objectives)
        size = ratio_grid_size(n_objectives=n_objectives, epsilon=epsilon, delta=delta)
        if size > settings.max_policies:
            raise InvalidInputError(
                f"PALM's grid for epsilon={epsilon}, delta={delta} has {size} "
                f"preferences, more than portfolio.max_policies={settings.max_policies}; allow "
                "more, widen the tolerances, or search adaptively."
            )
    n_prompts = len(_prompts(run, settings))
    if n_prompts < LEAST_PROMPTS:
        raise InvalidInputError(
            f"{n_prompts} prompts cannot choose and certify a portfolio; give at least "
            f"{LEAST_PROMPTS}, some hundred for a certificate that says much."
        )


def _prompts(run: RunSettings, settings: PortfolioSettings) -> tuple[str, ...]:
    """The prompts that policies are measured on; InvalidInputError where the file is wrong."""
    pool = run_prompts(run) if settings.prompts is None else read_prompts(settings.prompts)
    order = generator_for(run.seed, "portfolio prompts").permutation(len(pool))
    return tuple(pool[k] for k in sorted(order[: settings.n_prompts or None]))


def _searched(
    oracle: ModelOracle, settings: PortfolioSettings
) -> tuple[tuple[str, ...], str, float | None]:
    """Names of the policies, why the search stopped, and its own gap."""
    if settings.search == "grid":
        epsilon, delta = settings.grid_tolerances(len(oracle.objectives))
        rules = PalmSettings(
            epsilon=epsilon,
            delta=delta,
            cover_delta=settings.tolerance,
            max_calls=settings.max_policies,
        )
        return palm(oracle, rules).payoffs.table.policies, "grid", None
    search = SearchSettings(
        tolerance=settings.tolerance,
        max_calls=settings.max_policies,
        slack=settings.slack if isinstance(settings.slack, float) else 0.0,
        confidence=settings.confidence,
    )
    names: tuple[str, ...] = ()
    stop, gap = "", None
    with progress_of("portfolio, policies of the budget") as report:
        for state in steps(oracle, search):
            names, stop, gap = state.payoffs.table.policies, state.stop or "", state.gap
            report(len(names), settings.max_policies)
    return names, stop, gap


def _with_known(
    oracle: ModelOracle, builder: Builder, settings: PortfolioSettings, names: Sequence[str]
) -> tuple[str, ...]:
    """The policies, the run's other experts with a preference, and the base itself."""
    known: list[str] = []
    if settings.oracle == "trained":
        run = builder.settings
        anchors = make_anchors(run.anchors, objectives=run.objective_names, seed=run.seed)
        known = [oracle.policy(a.vector()) for a in anchors if not a.is_signed]
    oracle.policies[BASE_POLICY.name] = BASE_POLICY
    return tuple(dict.fromkeys([*names, *known, BASE_POLICY.name]))
