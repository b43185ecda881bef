"""The ways that are compared: each a small function from a seed's parts and a person to an arm.

An arm says how one person is answered: which engine, which request for a prompt, how many
proposals. A new way is one function more, named in `way_named`.

| way | what it is |
|---|---|
| base | nobody's taste |
| prompting | the base, told in words what the person wants |
| best-of-n | of `n` answers of the base, the one the reward models like best for the person |
| best-expert | of the single-objective experts, the best for the person on development prompts |
| portfolio-K | the best of K policies that were chosen for all people together |
| soup, output-soup, implicit-soup | Spectral Souping with the person's preference known |
| soup-told | the parameter soup, and the base told in words what the person wants |
| soup@N | the parameter soup, preference learned from N comparisons |
| mixture, mixture-even | MoPE with its controller; the same experts pooled evenly |
| personalised-soup | mean of LoRA factors (Jang et al. 2023) |
| rewarded-soup | mean of parameters (Rame et al. 2023): the parameter soup with sum one |
| mod | log-linear pool of the experts (Shi et al. 2024): the output soup with sum one |
| conditioned | one policy trained with the preference in the prompt |
| bespoke | a policy trained for this person alone, as trained: costs one training each |
| bespoke-strong | the same, served with the sum of coefficients that the soups have |
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan, member_plan, parameter_soup_plan, reference_plan
from palate.core.protocols import Request
from palate.core.types import Completion
from palate.evaluate.suite import PersonSettings
from palate.mixture.wording import Asked
from palate.models.bank import AdapterBank
from palate.recipes.evaluate_kit import Kit
from palate.recipes.evaluate_learned import learned_preference
from palate.recipes.mixture_open import has_controller
from palate.soup.plans import mod_plan, rewarded_soup_plan, soup_plan

NEGLIGIBLE = 1e-9  # coefficients below are not named
FLOAT_BYTES = 4  # a coefficient is kept as float32


class Answers(Protocol):
    """What generates."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order."""
        ...


@dataclass(frozen=True, eq=False)
class Arm:
    """How one person is answered in one way.

    Attributes:
        engine: Generates.
        bank: Experts of the engine; `None` where log-probabilities of given texts are not asked.
        request: Prompt and copy to request.
        plan: The plan where it is the same for all prompts, else `None`.
        coefficients: By expert: of a row, a pool or a member.
        n_rows: Passes of the model per drawn token.
        n_proposals: Answers drawn, of which the reward models choose one for the person.
        n_bytes: What is kept of a person, adapters of their own included.
        source: Name of the engine's adapters; part of what determines an answer.
    """

    engine: Answers
    bank: AdapterBank | None
    request: Callable[[str, int], Request]
    plan: Plan | None
    coefficients: Mapping[str, float] = field(default_factory=dict)
    n_rows: float = 1.0
    n_proposals: int = 1
    n_bytes: int = 0
    source: str = "experts"


Way = Callable[[Kit, PersonSettings], Arm]


def base(kit: Kit, _person: PersonSettings) -> Arm:
    """Nobody's taste."""
    return _planned(kit, reference_plan(n_experts=len(kit.experts)))


def prompting(kit: Kit, person: PersonSettings) -> Arm:
    """The base, told in words what the person wants."""
    plan = reference_plan(n_experts=len(kit.experts))
    wish = kit.wish(person)
    return Arm(
        engine=kit.engine,
        bank=kit.opened.bank,
        request=lambda prompt, copy: kit.request(prompt, plan, copy=copy, wish=wish),
        plan=None,
        n_bytes=len(wish.encode()),
        source="wish",
    )


def best_of_n(kit: Kit, _person: PersonSettings) -> Arm:
    """Of several answers of the base, the one the reward models like best for the person."""
    plan = reference_plan(n_experts=len(kit.experts))
    n = kit.suite.best_of
    return Arm(
        engine=kit.engine,
        bank=None,
        request=lambda prompt, copy: kit.request(prompt, plan, copy=copy),
        plan=None,
        n_proposals=n,
        n_bytes=FLOAT_BYTES * len(kit.objectives),
        source=f"best of {n}",
    )


def best_expert(kit: Kit, person: PersonSettings) -> Arm:
    """Of the single-objective experts, the best for the person on development prompts."""
    names = kit.candidates.payoffs.table.policies
    worth = kit.candidates.payoffs.table.values @ kit.shares(person)
    best = max(kit.experts, key=lambda name: float(worth[names.index(name)]))
    return _candidate(kit, best)


def portfolio(size: int) -> Way:
    """The best of `size` policies that were chosen for all people together."""

    def way(kit: Kit, person: PersonSettings) -> Arm:
        members = kit.members(size)
        losses = kit.losses()[kit.people.index(person), members]
        name = kit.candidates.payoffs.table.policies[members[int(np.argmin(losses))]]
        return _candidate(kit, name)

    return way


def bespoke(kit: Kit, person: PersonSettings) -> Arm:
    """A policy trained for this person alone."""
    name = kit.bespoke_name(person)
    if name is None:
        raise InvalidInputError(
            f"There is no expert trained for {person.name} alone; give a library of them as "
            "'bespoke', or leave out the way."
        )
    arm = _candidate(kit, name)
    bank = kit.candidates_engine.bank
    return replace(arm, n_bytes=bank.n_bytes // bank.n_experts)


def bespoke_strong(kit: Kit, person: PersonSettings) -> Arm:
    """The person's own expert with the coefficient that the soups have in all."""
    arm = bespoke(kit, person)
    names = kit.candidates_engine.bank.names
    strength = kit.suite.strength
    plan = parameter_soup_plan([strength * (name in arm.coefficients) for name in names])
    return replace(
        arm,
        request=lambda prompt, copy: kit.request(prompt, plan, copy=copy),
        plan=plan,
        coefficients=dict.fromkeys(arm.coefficients, strength),
    )


def soup(kit: Kit, person: PersonSettings) -> Arm:
    """The parameter soup."""
    return _planned(kit, soup_plan(_strong(kit, person), way="soup"), n_kept=len(kit.experts))


def soup_told(kit: Kit, person: PersonSettings) -> Arm:
    """The parameter soup, and the wish in words: what mixtures read too."""
    arm = soup(kit, person)
    plan = soup_plan(_strong(kit, person), way="soup")
    wish = kit.wish(person)
    return replace(
        arm,
        request=lambda prompt, copy: kit.request(prompt, plan, copy=copy, wish=wish),
        plan=None,
        n_bytes=arm.n_bytes + len(wish.encode()),
    )


def output_soup(kit: Kit, person: PersonSettings) -> Arm:
    """The explicit output soup."""
    plan = soup_plan(_strong(kit, person), way="output-soup")
    return _planned(kit, plan, n_kept=len(kit.experts))


def implicit_soup(kit: Kit, person: PersonSettings) -> Arm:
    """The same distribution, drawn by rejection."""
    arm = output_soup(kit, person)
    return replace(arm, engine=kit.implicit, source="implicit")


def learned_soup(n_comparisons: int) -> Way:
    """The parameter soup, the preference learned from this many comparisons."""

    def way(kit: Kit, person: PersonSettings) -> Arm:
        shares = learned_preference(kit, person, n_comparisons=n_comparisons)
        owned = dict(zip(kit.objectives, shares.tolist(), strict=True))
        told = person.model_copy(update={"preference": owned})
        return _planned(kit, soup_plan(_strong(kit, told), way="soup"), n_kept=len(kit.experts))

    return way


def personalised_soup(kit: Kit, person: PersonSettings) -> Arm:
    """The mean of the experts' LoRA factors, as one adapter of the person's own."""
    engine = kit.factor_mean_engine
    index = [one.name for one in kit.people].index(person.name)
    plan = member_plan(index=index, n_experts=len(kit.people))
    return Arm(
        engine=engine,
        bank=engine.bank,
        request=lambda prompt, copy: kit.request(prompt, plan, copy=copy),
        plan=plan,
        coefficients=_named(kit, kit.own_shares(person)),
        n_bytes=engine.bank.n_bytes // engine.bank.n_experts,
        source="factor means",
    )


def rewarded_soup(kit: Kit, person: PersonSettings) -> Arm:
    """The mean of the experts' parameters."""
    plan = rewarded_soup_plan(kit.own_shares(person).tolist())
    return _planned(kit, plan, n_kept=len(kit.experts))


def mod(kit: Kit, person: PersonSettings) -> Arm:
    """The experts pooled log-linearly, coefficients of sum one."""
    return _planned(kit, mod_plan(kit.own_shares(person).tolist()), n_kept=len(kit.experts))


def mixture(kit: Kit, person: PersonSettings) -> Arm:
    """MoPE under the library's controller."""
    opened = kit.mixture
    plan = opened.request(kit.prompts[0], person.preference, sampling=kit.sampling).plan
    return Arm(
        engine=opened.engine,
        bank=None,
        request=lambda prompt, copy: opened.request(
            prompt, person.preference, sampling=kit.sampling, seed=kit.draw_seed(prompt, copy)
        ),
        plan=None,
        coefficients=_named(kit, kit.own_shares(person)),
        n_rows=float(len(plan.rows)),
        n_bytes=FLOAT_BYTES * len(kit.experts),
        source="controller",
    )


def mixture_even(kit: Kit, person: PersonSettings) -> Arm:
    """The wanted experts pooled evenly, reading the same: MoPE without its controller."""
    wording = kit.mixture.wording if has_controller(kit.opened) else kit.wording
    asked = _asked(kit, person)

    def request(prompt: str, copy: int) -> Request:
        plan = wording.plan(asked(prompt))
        return Request(kit.text(prompt), plan, kit.sampling, kit.draw_seed(prompt, copy))

    return Arm(
        engine=kit.engine,
        bank=None,
        request=request,
        plan=None,
        coefficients=_named(kit, kit.own_shares(person)),
        n_rows=float(np.count_nonzero(kit.own_shares(person))),
        n_bytes=FLOAT_BYTES * len(kit.experts),
    )


def conditioned(kit: Kit, person: PersonSettings) -> Arm:
    """One policy for everybody, trained with the preference in the prompt."""
    engine = kit.conditioned_engine
    plan = parameter_soup_plan((1.0,))
    asked = _asked(kit, person)

    def request(prompt: str, copy: int) -> Request:
        text = kit.wording.full_text(asked(prompt))  # as it was trained
        return Request(text, plan, kit.sampling, kit.draw_seed(prompt, copy))

    return Arm(
        engine=engine,
        bank=engine.bank,
        request=request,
        plan=None,
        n_bytes=len(kit.wording.preference(asked("any")).encode()),
        source=f"conditioned {kit.conditioned_hash}",
    )


def way_named(name: str) -> Way:
    """The way of this name; `portfolio-3` and `soup@10` carry a number.

    Raises:
        InvalidInputError: there is none.
    """
    plain: dict[str, Way] = {
        "base": base,
        "prompting": prompting,
        "best-of-n": best_of_n,
        "best-expert": best_expert,
        "soup": soup,
        "soup-told": soup_told,
        "output-soup": output_soup,
        "implicit-soup": implicit_soup,
        "mixture": mixture,
        "mixture-even": mixture_even,
        "personalised-soup": personalised_soup,
        "rewarded-soup": rewarded_soup,
        "mod": mod,
        "conditioned": conditioned,
        "bespoke": bespoke,
        "bespoke-strong": bespoke_strong,
    }
    if name in plain:
        return plain[name]
    for stem, sign, make in (("portfolio", "-", portfolio), ("soup", "@", learned_soup)):
        head, found, number = name.partition(sign)
        if head == stem and found and number.isdigit():
            return make(int(number))
    raise InvalidInputError(
        f"The way {name!r} is unknown; use {', '.join(plain)}, portfolio-K or soup@N."
    )


def _planned(kit: Kit, plan: Plan, *, n_kept: int = 0) -> Arm:
    normal = plan.normal_form()
    total = np.zeros(len(kit.experts))
    for row, share in zip(normal.rows, normal.pool.coefficients or (1.0,), strict=True):
        total += share * np.array(row.coefficients)
    return Arm(
        engine=kit.engine,
        bank=kit.opened.bank,
        request=lambda prompt, copy: kit.request(prompt, plan, copy=copy),
        plan=plan,
        coefficients=_named(kit, total),
        n_rows=float(len(normal.rows)),
        n_bytes=FLOAT_BYTES * n_kept,
    )


def _candidate(kit: Kit, name: str) -> Arm:
    engine = kit.candidates_engine
    plan = kit.candidates.plans[name]
    return Arm(
        engine=engine,
        bank=engine.bank,
        request=lambda prompt, copy: kit.request(prompt, plan, copy=copy),
        plan=plan,
        coefficients={name: 1.0} if name != "base" else {},
        n_bytes=FLOAT_BYTES,  # which member
        source="candidates",
    )


def _asked(kit: Kit, person: PersonSettings) -> Callable[[str], Asked]:
    strengths = tuple(kit.own_shares(person).tolist())
    return lambda prompt: Asked(prompt, strengths)


def _strong(kit: Kit, person: PersonSettings) -> list[float]:
    return (kit.suite.strength * kit.own_shares(person)).tolist()


def _named(kit: Kit, values: Float[ndarray, " experts"]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in zip(kit.experts, values, strict=True)
        if abs(value) > NEGLIGIBLE
    }
