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

The next run reads these files and makes only the missing parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from palate.build.builder import Builder
from palate.build.oracles import BASE_POLICY, ModelOracle, Prices, maker, some_prompts
from palate.build.payoff_job import PayoffEstimator
from palate.build.run_file import PortfolioSettings, RunSettings, read_prompts, run_prompts
from palate.core.errors import InvalidInputError
from palate.core.progress import progress_of
from palate.core.seeds import derive_seed, generator_for
from palate.library.portfolio import POLICIES, PORTFOLIO
from palate.portfolio.adaptive import SearchSettings, steps
from palate.portfolio.certificate import loss_sentence
from palate.portfolio.choice import PortfolioRequest, choose
from palate.portfolio.gap import additive_gap
from palate.portfolio.grid import ratio_grid_size
from palate.portfolio.palm import PalmSettings, palm
from palate.portfolio.payoff_file import save_payoffs
from palate.portfolio.payoffs import Payoffs, payoffs_from_measurements
from palate.portfolio.record import Record, save_record
from palate.portfolio.terms import Terms
from palate.training.anchors import make_anchors

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
    generator = generator_for(run.seed, "portfolio prompts")
    order = generator.permutation(len(pool))[: settings.n_prompts or None]
    return tuple(pool[k] for k in sorted(order))


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
