"""Yardstick B as a report: the share of a user's possible gain, by method and comparisons."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from jaxtyping import Float, Int
from numpy import ndarray
from rich.console import Console
from rich.table import Table
from scipy.sparse import csr_array

from palate.core.files import dump_json, write_text_atomic
from palate.core.types import Belief
from palate.soup.basis import effective_rank
from palate.soup.plans import reward_space_coefficients
from palate.soup.states import States, log_softmax
from palate.soup.trust import trust_region
from research.command_line import IsJson, run
from research.preferences.one_user import fit
from research.soup.ceilings import simplex_coefficients, tilt_coefficients
from research.soup.futures import corrected_soup, divergence_from_policies
from research.soup.normalised import Comparisons, fit_gated
from research.soup.token_trees import BETA, GAIN, LENGTH, VOCAB, Votes, Yardstick, votes, yardstick
from research.soup.trees import (
    Policy,
    answer_log_probs,
    answer_sums,
    objective,
    optimal_policy,
    soft_values,
    state_log_probs,
    tilts,
    tree_tilt_matrix,
)
from research.soup.yardstick_report import Row, YardstickReport, make_report

SEEDS = tuple(range(6))
SIZES = (4, 7, 15, 30)
N_VOTES = (10, 30, 100, 300)
STAGE_TWO = {("ridge", 7): (30, 100, 300), ("ridge", 15): (30, 100, 300), ("prior", 15): (100, 300)}
N_STAGE_TWO_USERS = 3
BUDGETS = (0.1, 0.2)
TRUST_SIZE = 15
TRUST_VOTES = (5, 10, 30, 100)
TRUST_SEEDS = tuple(range(5))
PRIOR_FLOOR = 1e-4


@dataclass(frozen=True, eq=False)
class Bench:
    """One world with its experts worked out.

    Attributes:
        world: The world.
        experts: Optimal policies of the anchors.
        sums: `[answers, anchors]`, tilts summed over whole answers.
        basis: `[pairs, anchors]`, the tilt matrix.
        states: Of all depths, one after the other.
        shares: `[states]`, how often the reference reaches them, divided by the answers' length.
        imitations: `[pairs, training]`, tilts of the training users' optimal policies.
    """

    world: Yardstick
    experts: list[Policy]
    sums: Float[ndarray, "answers anchors"]
    basis: Float[ndarray, "pairs anchors"]
    states: States
    shares: Float[ndarray, " states"]
    imitations: Float[ndarray, "pairs training"]

    def recovered(self, policy: Policy, user: int) -> float:
        """Share of the user's possible gain that the policy reaches, in percent."""
        reference, returns = self.world.reference, self.world.attributes @ self.world.users[user]
        base = float(np.exp(answer_log_probs(reference)) @ returns)
        best = float(soft_values(reference, returns, beta=BETA)[0][0])
        own = objective(policy, reference=reference, returns=returns, beta=BETA)
        return 100 * (own - base) / (best - base)

    def soup(self, coefficients: Float[ndarray, " experts"]) -> Policy:
        """The explicit soup of the first experts."""
        n_experts = len(coefficients)
        scores = self.states.reference + self.states.tilts[:, :, :n_experts] @ coefficients
        ends = np.cumsum([VOCAB**depth for depth in range(LENGTH)])[:-1]
        return tuple(np.split(log_softmax(scores), ends))

    def first(self, n_experts: int) -> States:
        """The states with the tilts of the first experts only."""
        return States(self.states.reference, self.states.tilts[:, :, :n_experts])


def run_yardstick(
    *,
    out: Path | None = None,
    on_seed: Callable[[int, int], None] = lambda _done, _all: None,
) -> YardstickReport:
    """Measure every cell of the table, and write the page if `out` names one."""
    rows: list[Row] = []
    ranks: list[dict[float, int]] = []
    for done, seed in enumerate(SEEDS, start=1):
        bench = make_bench(yardstick(seed))
        ranks.append(effective_rank(bench.basis))
        priors = {n_experts: _priors(bench, n_experts) for n_experts in SIZES}
        for user in range(len(bench.world.users)):
            said = votes(bench.world, user=user)
            for n_experts in SIZES:
                rows += _without_votes(bench, user, n_experts)
                rows += _with_votes(bench, user, said, priors[n_experts])
            if user < N_STAGE_TWO_USERS:
                rows += _stage_two(bench, user, said, priors)
        if seed in TRUST_SEEDS:
            rows += _trusted(make_bench(yardstick(seed, n_training=0)))
        on_seed(done, len(SEEDS))
    report = make_report(rows, ranks)
    if out is not None:
        write_text_atomic(out, report.to_markdown())
    return report


def make_bench(world: Yardstick) -> Bench:
    """The world's experts, and what is computed once from them."""
    experts = [
        optimal_policy(world.reference, world.attributes @ anchor, beta=BETA)
        for anchor in world.anchors
    ]
    training = [
        optimal_policy(world.reference, world.attributes @ user, beta=BETA)
        for user in world.training
    ]
    tables = [tilts(expert, reference=world.reference) for expert in experts]
    reached = np.concatenate(state_log_probs(world.reference)[:LENGTH])
    return Bench(
        world=world,
        experts=experts,
        sums=np.stack([answer_sums(table) for table in tables], axis=1),
        basis=tree_tilt_matrix(world.reference, experts),
        states=States(
            np.concatenate(world.reference),
            np.stack([np.concatenate(table) for table in tables], axis=-1),
        ),
        shares=np.exp(reached) / LENGTH,
        imitations=tree_tilt_matrix(world.reference, training)
        if training
        else np.zeros((len(reached) * VOCAB, 0)),
    )


def population_prior(bench: Bench, *, n_experts: int) -> Belief:
    """Mean zero and the second moment of the coefficients that imitate the training users."""
    fitted = np.linalg.lstsq(bench.basis[:, :n_experts], bench.imitations, rcond=None)[0]
    second = fitted @ fitted.T / bench.imitations.shape[1]
    return Belief(np.zeros(n_experts), second + PRIOR_FLOOR * np.eye(n_experts))


def _without_votes(bench: Bench, user: int, n_experts: int) -> Iterator[Row]:
    world = bench.world
    wanted = world.users[user]
    best = optimal_policy(world.reference, world.attributes @ wanted, beta=BETA)
    target = tree_tilt_matrix(world.reference, [best])[:, 0]
    in_rewards = reward_space_coefficients(wanted, anchors=world.anchors[:n_experts])
    in_values = tilt_coefficients(target, basis=bench.basis[:, :n_experts])
    experts = bench.experts[:n_experts]
    corrected = corrected_soup(
        world.reference,
        experts,
        in_rewards,
        divergence=divergence_from_policies(world.reference, experts, in_rewards, beta=BETA),
        beta=BETA,
    )
    found = {
        "reward space": bench.soup(in_rewards),
        "Q space": bench.soup(in_values),
        "reward space, corrected": corrected,
    }
    for method, policy in found.items():
        yield Row(world.seed, method, n_experts, 0, bench.recovered(policy, user))


def _restricted(bench: Bench, user: int, n_experts: int) -> Iterator[Row]:
    world = bench.world
    best = optimal_policy(world.reference, world.attributes @ world.users[user], beta=BETA)
    target = tree_tilt_matrix(world.reference, [best])[:, 0]
    basis = bench.basis[:, :n_experts]
    inside = bench.recovered(bench.soup(simplex_coefficients(target, basis=basis)), user)
    free = tilt_coefficients(target, basis=basis)
    yield Row(world.seed, "Q space, simplex", n_experts, 0, inside)
    yield Row(world.seed, "sum of absolute coefficients", n_experts, 0, float(np.abs(free).sum()))


def _with_votes(bench: Bench, user: int, said: Votes, priors: dict[str, Belief]) -> Iterator[Row]:
    for method, prior in priors.items():
        for n in N_VOTES:
            found = _stage_one(bench, said, np.arange(n), prior)
            recovered = bench.recovered(bench.soup(found), user)
            yield Row(bench.world.seed, method, len(found), n, recovered)


def _stage_two(
    bench: Bench, user: int, said: Votes, priors: dict[int, dict[str, Belief]]
) -> Iterator[Row]:
    for (method, n_experts), counts in STAGE_TWO.items():
        prior = priors[n_experts][method]
        known = comparisons(bench.first(n_experts), bench, said)
        for n in counts:
            fitted = fit_gated(
                known.part(np.arange(n)),
                first=partial(_stage_one, bench, said, prior=prior),
                prior=prior,
                scale=BETA * GAIN,
            )
            stages = {
                "stage 1": fitted.first,
                "stage 2": fitted.second,
                "gated": fitted.coefficients,
            }
            for stage, coefficients in stages.items():
                recovered = bench.recovered(bench.soup(coefficients), user)
                yield Row(bench.world.seed, f"{method}, {stage}", n_experts, n, recovered)


def _trusted(bench: Bench) -> Iterator[Row]:
    prior = Belief(np.zeros(TRUST_SIZE), np.eye(TRUST_SIZE))
    for user in range(len(bench.world.users)):
        for n_experts in SIZES:
            yield from _restricted(bench, user, n_experts)
        said = votes(bench.world, user=user)
        for n in TRUST_VOTES:
            found = _stage_one(bench, said, np.arange(n), prior)
            scaled = {"no budget": found}
            for budget in BUDGETS:
                scaled[f"budget {budget}"] = trust_region(
                    found, bench.first(TRUST_SIZE), budget=budget, state_shares=bench.shares
                ).coefficients
            for method, coefficients in scaled.items():
                recovered = bench.recovered(bench.soup(coefficients), user)
                yield Row(bench.world.seed, method, TRUST_SIZE, n, recovered)


def comparisons(states: States, bench: Bench, said: Votes) -> Comparisons:
    """A user's votes with the states their answers passed through."""
    n_experts = states.tilts.shape[2]
    rows = np.arange(len(said.labels))
    visits = np.zeros((len(rows), len(states.reference)))
    start = 0
    for depth in range(LENGTH):
        below = VOCAB ** (LENGTH - depth)
        visits[rows, start + said.first // below] += 1
        visits[rows, start + said.second // below] -= 1
        start += VOCAB**depth
    features = (bench.sums[said.first] - bench.sums[said.second])[:, :n_experts]
    return Comparisons(features, csr_array(visits), said.labels, states)


def _stage_one(
    bench: Bench, said: Votes, used: Int[ndarray, " used"], prior: Belief
) -> Float[ndarray, " experts"]:
    n_experts = len(prior.mean)
    features = (bench.sums[said.first] - bench.sums[said.second])[:, :n_experts]
    return fit(BETA * features[used], said.labels[used], prior=prior, gain=GAIN).mean


def _priors(bench: Bench, n_experts: int) -> dict[str, Belief]:
    return {
        "ridge": Belief(np.zeros(n_experts), np.eye(n_experts)),
        "prior": population_prior(bench, n_experts=n_experts),
    }


def main(
    *,
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
    is_json: IsJson = False,
) -> None:
    """Coefficients on token trees with known answers; fails when a check does not hold."""
    console = Console(stderr=is_json)
    report = run_yardstick(
        out=out, on_seed=lambda done, n: console.print(f"world {done} of {n}", highlight=False)
    )
    if is_json:
        typer.echo(dump_json(report.to_json()))
    else:
        table = Table("way", "experts", "comparisons", "percent of the possible gain", "lowest")
        for (method, size, n), cell in report.cells.items():
            shown = f"{cell.estimate:.1f} [{cell.low:.1f}, {cell.high:.1f}]"
            table.add_row(method, str(size), str(n), shown, f"{report.worst[method, size, n]:.1f}")
        console.print(table)
    report.require_met()


if __name__ == "__main__":
    run(main)
