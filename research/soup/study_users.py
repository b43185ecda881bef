"""How close soups come to a policy trained for the user: the small world, the gold rules judge.

For every seed: a library of 24 basis experts and a bespoke expert per user, from nothing but the
base; a basis of the twelve experts that span most (greedy D-optimality on tilts); simulated votes
of every user; coefficients after 0 to 100 of them; answers to held-out prompts. Every stage is
kept under the work folder and used again.

Judged on `N_PROMPTS` held-out prompts, one answer each at temperature 1; ways that need a pass of
the model per expert on the first `N_OUTPUT_PROMPTS` of them. Bases and ceilings are those of the
same prompts. Nothing was chosen on these users or prompts: budget and largest scale are the
package's own, chosen on development users (docs/log.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.files import read_json, write_json
from palate.core.plan import (
    Plan,
    implicit_plan,
    member_plan,
    output_soup_plan,
    parameter_soup_plan,
    reference_plan,
)
from palate.core.protocols import Request, SamplingParams
from palate.core.seeds import derive_seed, generator_for
from palate.core.types import Completion
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.engine.protocol import finished
from palate.library.folder import LibraryFolder
from palate.models.load import load_base
from palate.soup.plans import reward_space_coefficients, soup_plan
from palate.soup.settings import SoupSettings
from palate.soup.states import States
from palate.soup.trust import trust_region
from research.soup.candidates import Candidates, make_candidates
from research.soup.fit import (
    StudyBasis,
    best_single_experts,
    fit_users,
    make_basis,
    select_places,
    serve_users,
)
from research.soup.judge import Cell, Judge, answer_cell, cell_of
from research.soup.library import (
    basis_anchors,
    build_study_library,
    reported_users,
)
from research.soup.pool import AnswerPool, Votes, make_pool, pool_states, simulate_votes
from research.soup.rivals import (
    instructions,
    save_factor_means,
)
from research.world.objectives import OBJECTIVE_NAMES
from research.world.prompts import MAX_ANSWER_TOKENS, base_folder, format_prompt, held_out_prompts

N_EXPERTS = 12
N_VOTES = (3, 5, 10, 30, 100)
N_PROMPTS = 32
N_OUTPUT_PROMPTS = 8


@dataclass(frozen=True)
class Counted:
    """Answers sampled by rejection, in the order of the requests."""

    completions: tuple[Completion, ...]
    n_tokens: int  # of all answers
    n_proposals: int  # for them
    n_fallbacks: int  # tokens that reached the cap and came from the explicit soup


def generate_counted(engine: LocalEngine, requests: Sequence[Request]) -> Counted:
    """Answer the requests and count what that took."""
    pairs = finished(engine.open_session(), requests)
    return Counted(
        completions=tuple(completion for _, completion in pairs),
        n_tokens=sum(len(completion.tokens) for _, completion in pairs),
        n_proposals=sum(running.n_proposals for running, _ in pairs),
        n_fallbacks=sum(running.n_fallbacks for running, _ in pairs),
    )


@dataclass(frozen=True, eq=False)
class Seed:
    """Everything of one seed that answers are made from.

    Attributes:
        number: The seed.
        folder: Of its stages.
        library: Basis and bespoke experts.
        judge: Base, held-out prompts.
        preferences: `[users, objectives]`.
        pool: What users are shown.
        states: States of the base with the tilts of all basis experts.
        order: All basis experts, most telling first.
        votes: Of the reported users.
    """

    number: int
    folder: Path
    library: LibraryFolder
    judge: Judge
    preferences: Float[ndarray, "users objectives"]
    pool: AnswerPool
    states: States
    order: tuple[int, ...]
    votes: Votes

    def experts(self, names: Sequence[str]) -> dict[str, Path]:
        """Adapter folders by name."""
        return {name: self.library.expert_folder(name) for name in names}

    def basis(self, n_experts: int) -> StudyBasis:
        """The basis of the first experts of the order."""
        return make_basis(
            self.pool,
            self.states,
            basis_anchors(seed=self.number),
            places=self.order[:n_experts],
            beta=self.library.manifest.beta,
            seed=self.number,
        )


def open_seed(work: Path, number: int) -> Seed:
    """The seed's library, pool, states and votes, made where they are not there yet."""
    folder = work / f"seed-{number}"
    base = load_base(base_folder())
    library = build_study_library(folder / "library", seed=number)
    names = tuple(anchor.name for anchor in basis_anchors(seed=number))
    pool = make_pool(folder / "pool.json", base=base, library=library, experts=names, seed=number)
    bank = AdapterBank.load(base, {name: library.expert_folder(name) for name in names})
    try:
        states = pool_states(base, bank, pool, seed=number)
    finally:
        bank.close()
    preferences = np.array([user.direction for user in reported_users(seed=number)])
    votes = simulate_votes(
        pool,
        preferences,
        n_comparisons=max(N_VOTES),
        generator=generator_for(number, "soup study", "votes"),
    )
    judge = Judge(base, folder / "cells", held_out_prompts()[:N_PROMPTS], number)
    order = select_places(states)
    return Seed(number, folder, library, judge, preferences, pool, states, order, votes)


def run_seed(work: Path, number: int) -> list[dict[str, Any]]:
    """The rows of one seed: read if all are there, measured otherwise."""
    path = work / f"seed-{number}" / "rows.json"
    if path.is_file():
        return read_json(path)
    seed = open_seed(work, number)
    basis = seed.basis(N_EXPERTS)
    table = Table(seed, basis.soup.settings)
    table.add("base", table.base)
    table.add("bespoke", table.bespoke)
    table.add("bespoke to the budget", table.raised)
    _learned(table, basis, prior="prior")
    _given_preferences(table, basis)
    _learned(table, basis.with_plain_prior(), prior="plain")
    _by_outputs(table, basis, prior="prior")
    _by_outputs(table, basis.with_plain_prior(), prior="plain")
    write_json(path, table.rows)
    return table.rows


def study_soups(work: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """All rows of all seeds.

    Raises:
        InvalidInputError: there are no seeds, or one occurs twice.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise InvalidInputError(f"The seeds {list(seeds)} make no study; give different ones.")
    return [row for number in seeds for row in run_seed(work, number)]


class Table:
    """Rows as they are measured, each with the base and the ceiling on the same prompts.

    Attributes:
        seed: What is measured.
        rows: So far.
        base: The base's answers.
        bespoke: The answers of every user's own expert.
        raised: The same with coefficients enlarged as soups' are: the ceiling at equal KL.
    """

    def __init__(self, seed: Seed, settings: SoupSettings) -> None:
        """Answer with the base and with everybody's own expert."""
        self.seed = seed
        self.rows: list[dict[str, Any]] = []
        n_users = len(seed.preferences)
        bare = [reference_plan(n_experts=0)] * n_users
        users = [user.name for user in reported_users(seed=seed.number)]
        experts = seed.experts(users)
        bespoke = [member_plan(index=k, n_experts=n_users) for k in range(n_users)]
        self.base = answer_cell(seed.judge, "base", bare, experts={})
        self.bespoke = answer_cell(seed.judge, "bespoke", bespoke, experts=experts)
        raised = _raised_bespoke(seed, experts, settings)
        self.raised = answer_cell(seed.judge, "bespoke-raised", raised, experts=experts)

    def add(self, method: str, cell: Cell, *, prior: str = "", n: int = -1, **more: Any) -> None:
        """One row; `n` is -1 for ways that learn nothing."""
        n_prompts = cell.gold.shape[1]
        preferences = self.seed.preferences
        self.rows.append(
            {
                "seed": self.seed.number,
                "way": method,
                "prior": prior,
                "n": n,
                "n_prompts": n_prompts,
                "utility": cell.utilities(preferences).tolist(),
                "base": self.base.first(n_prompts).utilities(preferences).tolist(),
                "ceiling": self.bespoke.first(n_prompts).utilities(preferences).tolist(),
                "raised_ceiling": self.raised.first(n_prompts).utilities(preferences).tolist(),
                "kl_per_token": cell.kl_per_token,
                "kl_per_answer": np.mean(cell.kl, axis=1).tolist(),
                "well_formed": float(np.mean(cell.is_well_formed)),
                **more,
            }
        )


def _raised_bespoke(seed: Seed, experts: dict[str, Path], settings: SoupSettings) -> list[Plan]:
    """Everybody's own expert, enlarged or shrunk as a soup's coefficients would be."""
    path = seed.folder / "bespoke-scales.json"
    if not path.is_file():
        bank = AdapterBank.load(seed.judge.base, experts)
        try:
            states = pool_states(seed.judge.base, bank, seed.pool, seed=seed.number)
        finally:
            bank.close()
        rows = [
            trust_region(
                row, states, budget=settings.budget, largest_scale=settings.largest_scale
            ).coefficients
            for row in np.eye(len(experts))
        ]
        write_json(path, rows)
    return [parameter_soup_plan(row) for row in read_json(path)]


def _given_preferences(table: Table, basis: StudyBasis) -> None:
    """Methods that are given the preference, and the one soup for everybody."""
    seed, judge, preferences = table.seed, table.seed.judge, table.seed.preferences
    n_users = len(preferences)
    axes = seed.experts(OBJECTIVE_NAMES)
    chosen = seed.experts(basis.soup.experts)
    bare = [reference_plan(n_experts=0)] * n_users
    sentences = instructions(preferences)
    table.add(
        "prompting", answer_cell(judge, "prompting", bare, experts={}, instructions=sentences)
    )
    rewarded = [parameter_soup_plan(preference.tolist()) for preference in preferences]
    table.add("rewarded soup", answer_cell(judge, "rewarded", rewarded, experts=axes))
    places = tuple(range(len(OBJECTIVE_NAMES)))  # the axes come first among all experts
    own = States(seed.states.reference, seed.states.tilts[:, :, places])
    settings = basis.soup.settings
    raised = [
        trust_region(
            preference, own, budget=settings.budget, largest_scale=settings.largest_scale
        ).coefficients
        for preference in preferences
    ]
    plans = [parameter_soup_plan(row.tolist()) for row in raised]
    table.add("rewarded soup to the budget", answer_cell(judge, "raised", plans, experts=axes))
    means = save_factor_means(
        seed.folder / "factor-means",
        preferences,
        axis_folders=list(axes.values()),
        base_path=seed.library.manifest.base.path,
    )
    plans = [member_plan(index=k, n_experts=n_users) for k in range(n_users)]
    table.add("Personalized Soups", answer_cell(judge, "factor-means", plans, experts=means))
    share = [1 / N_EXPERTS] * N_EXPERTS
    uniform = [parameter_soup_plan(share)] * n_users
    table.add("uniform soup", answer_cell(judge, "uniform", uniform, experts=chosen))
    solved = [
        reward_space_coefficients(t, anchors=basis.soup.anchors).tolist() for t in preferences
    ]
    plans = [parameter_soup_plan(row) for row in solved]
    table.add("reward-space coefficients", answer_cell(judge, "solved", plans, experts=chosen))
    few = Judge(judge.base, judge.folder, judge.prompts[:N_OUTPUT_PROMPTS], judge.seed)
    pooled = [output_soup_plan(preference.tolist()) for preference in preferences]
    table.add("MOD", answer_cell(few, "mod", pooled, experts=axes))


def _learned(table: Table, basis: StudyBasis, *, prior: str) -> None:
    """Parameter soups and best-of-n after every number of votes; single experts beside them."""
    seed, judge = table.seed, table.seed.judge
    experts = seed.experts(basis.soup.experts)
    candidates = make_candidates(
        seed.folder / "candidates.json", judge=judge, experts=experts, seed=seed.number
    )
    mean = basis.soup.unscaled(basis.soup.prior).mean.tolist()
    nobody = [parameter_soup_plan(mean)] * len(seed.preferences)
    cell = answer_cell(judge, f"{prior}-0", nobody, experts=experts)
    table.add("parameter soup", cell, prior=prior, n=0)
    for n in N_VOTES:
        beliefs = fit_users(basis, seed.votes, n_comparisons=n)
        soups = serve_users(basis, beliefs, method="soup")
        cell = answer_cell(judge, f"{prior}-{n}", [soup.plan for soup in soups], experts=experts)
        scale = float(np.mean([soup.scale for soup in soups]))
        table.add("parameter soup", cell, prior=prior, n=n, scale=scale)
        rewards = np.array([basis.soup.unscaled(belief).mean for belief in beliefs])
        best = _best_of_n(candidates, rewards)
        table.add("best of 8 by fitted reward", best, prior=prior, n=n)
    if prior == "prior":
        singles = [member_plan(index=k, n_experts=N_EXPERTS) for k in range(N_EXPERTS)]
        alone = answer_cell(judge, "singles", singles, experts=experts)
        for n in N_VOTES:
            picked = best_single_experts(basis, seed.votes, n_comparisons=n)
            table.add("best single expert", alone.of_users(picked), n=n)


def _best_of_n(candidates: Candidates, coefficients: Float[ndarray, "users experts"]) -> Cell:
    """The base's candidate of each prompt with the highest believed reward, for every user."""
    rewards = np.einsum("qck,pk->pqc", candidates.log_ratios, coefficients)
    return candidates.picked(rewards.argmax(axis=2))


def _by_outputs(table: Table, basis: StudyBasis, *, prior: str) -> None:
    """Explicit and implicit output soups after every number of votes, on fewer prompts."""
    seed, whole = table.seed, table.seed.judge
    judge = Judge(whole.base, whole.folder, whole.prompts[:N_OUTPUT_PROMPTS], whole.seed)
    experts = seed.experts(basis.soup.experts)
    stem = "" if prior == "prior" else f"{prior}-"
    mean = basis.soup.unscaled(basis.soup.prior).mean
    for n in (0, *N_VOTES):
        coefficients = np.stack([mean] * len(seed.preferences))
        if n:
            beliefs = fit_users(basis, seed.votes, n_comparisons=n)
            soups = serve_users(basis, beliefs, method="output-soup")
            coefficients = np.stack([soup.coefficients for soup in soups])
        plans = [soup_plan(row.tolist(), method="output-soup") for row in coefficients]
        cell = answer_cell(judge, f"explicit-{stem}{n}", plans, experts=experts)
        table.add("explicit output soup", cell, prior=prior, n=n)
        one_pass = [soup_plan(row.tolist(), method="soup") for row in coefficients]
        cell = answer_cell(judge, f"few-{stem}{n}", one_pass, experts=experts)
        table.add("parameter soup, same prompts", cell, prior=prior, n=n)
        cell, acceptance = _implicit(judge, f"implicit-{stem}{n}", coefficients, experts)
        table.add("implicit output soup", cell, prior=prior, n=n, acceptance=acceptance)


def _implicit(
    judge: Judge,
    name: str,
    coefficients: Float[ndarray, "users experts"],
    experts: dict[str, Path],
) -> tuple[Cell, float]:
    path = judge.folder / f"{name}.json"
    n_prompts = len(judge.prompts)
    if not path.is_file():
        bank = AdapterBank.load(judge.base, experts)
        requests = [
            Request(
                format_prompt(prompt),
                implicit_plan(soup_plan(row.tolist(), method="output-soup")),
                SamplingParams(max_tokens=MAX_ANSWER_TOKENS),
                seed=derive_seed(judge.seed, "soup study", name, user, prompt),
            )
            for user, row in enumerate(coefficients)
            for prompt in judge.prompts
        ]
        counted = generate_counted(LocalEngine(judge.base, bank), requests)
        found = counted.completions
        accepted = counted.n_tokens - counted.n_fallbacks
        bank.close()
        rows = [slice(at, at + n_prompts) for at in range(0, len(found), n_prompts)]
        content = {
            "texts": [[a.text for a in found[row]] for row in rows],
            "kl": [[0.0] * n_prompts for _ in rows],  # that of the explicit soup; not measured
            "n_tokens": [[len(a.tokens) for a in found[row]] for row in rows],
            "acceptance": accepted / max(counted.n_proposals, 1),
            "n_fallbacks": counted.n_fallbacks,
        }
        write_json(path, content)
    content = read_json(path)
    cell = cell_of(content, judge.prompts, places=range(len(coefficients)))
    return cell, float(content["acceptance"])
