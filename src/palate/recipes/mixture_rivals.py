"""The mixture and its rivals in the small world, as requests to engines.

Everybody answers the same prompts for the same eight people with the same seeds:

    controller      the library's trained controller over the person's three experts
    ppo, ...        other controllers, given by the caller
    uniform         the same rows with equal shares at every token
    static          the same rows with the best constant shares, learned by REBEL from as many
                    answers
    p-soups         one adapter per person whose A and whose B are the means of the three experts'
                    (Personalized Soups as coded)
    soup-1, soup-2  the parameter soup of a third, or two thirds, on each of the three experts
    prompting       the base
    morl            one adapter for everybody

All of these read the person's three preference sentences, and so does `uniform-plain`, equal shares
of rows that are one expert each; `base`, `soup-1-silent` and `soup-2-silent` read none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from palate.core.plan import Plan, member_plan, parameter_soup_plan, reference_plan
from palate.core.protocols import Engine, Request, Sampling
from palate.core.seeds import derive_seed
from palate.mixture.rollout import CONTROLLER
from palate.mixture.wording import Asked, Wording
from palate.models.adapter import Adapter, Factor, load_adapter
from palate.models.bank import AdapterBank
from palate.models.engine import Controller, LocalEngine
from palate.recipes.mixture_open import strengths_for
from palate.recipes.opened import Opened
from palate.world.objectives import PEOPLE
from palate.world.prompts import MAX_ANSWER_TOKENS

MORL, P_SOUPS = "morl", "p-soups"
TOLD = ("p-soups", "soup-1", "soup-2", "prompting", "morl")  # rivals that read the whole wish
RIVALS = ("uniform", "static", *TOLD)  # what the headline averages over
PLAIN = "uniform-plain"
BESIDE = (PLAIN, "base", "soup-1-silent", "soup-2-silent")
MAX_ROWS = 256

Ask = Callable[[Asked, int], Request]  # what is asked of a way, and the seed


@dataclass(frozen=True, eq=False)
class Way:
    """One way of answering.

    Attributes:
        engine: Answers.
        ask: Makes the request.
    """

    engine: Engine
    ask: Ask

    def answers(self, asked: list[Asked], *, seed: int) -> list[str]:
        """One answer per item; a prompt has one seed per person, the same for all ways."""
        requests = [
            self.ask(item, derive_seed(seed, item.prompt, *map(str, item.wanted))) for item in asked
        ]
        return [completion.text for completion in self.engine.generate(requests)]


def everybody(opened: Opened, prompts: tuple[str, ...]) -> list[Asked]:
    """Every prompt for every person, prompt by prompt."""
    manifest = opened.library.manifest
    wanted = [
        strengths_for(manifest, {objective.name: 1 / 3 for objective in person.objectives})
        for person in PEOPLE
    ]
    return [Asked(prompt, strengths) for prompt in prompts for strengths in wanted]


def controlled_way(opened: Opened, wording: Wording, controller: Controller) -> Way:
    """Under a controller, trained or constant."""
    engine = LocalEngine(
        opened.base, opened.bank, max_rows=MAX_ROWS, controllers={CONTROLLER: controller}
    )

    def ask(item: Asked, seed: int) -> Request:
        plan = wording.plan(item, controller=CONTROLLER)
        return Request(wording.full_text(item), plan, _sampling(), seed)

    return Way(engine, ask)


def uniform_way(opened: Opened, wording: Wording) -> Way:
    """Equal shares at every token."""
    engine = LocalEngine(opened.base, opened.bank, max_rows=MAX_ROWS)

    def ask(item: Asked, seed: int) -> Request:
        return Request(wording.full_text(item), wording.plan(item), _sampling(), seed)

    return Way(engine, ask)


def morl_way(opened: Opened, wording: Wording, adapter: Adapter) -> Way:
    """The one adapter for everybody."""
    bank = AdapterBank(opened.base, {MORL: adapter})
    plan = member_plan(index=0, n_experts=1)

    def ask(item: Asked, seed: int) -> Request:
        return Request(wording.full_text(item), plan, _sampling(), seed)

    return Way(LocalEngine(opened.base, bank, max_rows=MAX_ROWS), ask)


def rivals(opened: Opened, wording: Wording) -> dict[str, Way]:
    """All ways but those that are trained for the study, by name."""
    n_experts = opened.bank.n_experts
    engine = LocalEngine(opened.base, opened.bank, max_rows=MAX_ROWS)
    extra = _mean_adapters(opened)
    bank = AdapterBank(opened.base, extra)
    extra_engine = LocalEngine(opened.base, bank, max_rows=MAX_ROWS)
    places = {name: place for place, name in enumerate(extra)}

    def told(plan_of: Callable[[Asked], Plan]) -> Ask:
        return lambda item, seed: Request(wording.full_text(item), plan_of(item), _sampling(), seed)

    def silent(plan_of: Callable[[Asked], Plan]) -> Ask:
        plain = Wording(wording.base, ("",) * n_experts)
        return lambda item, seed: Request(plain.full_text(item), plan_of(item), _sampling(), seed)

    def soup(strength: float) -> Callable[[Asked], Plan]:
        return lambda item: parameter_soup_plan([strength * s for s in item.strengths])

    def reference(_item: Asked) -> Plan:
        return reference_plan(n_experts=n_experts)

    def member(name_of: Callable[[Asked], str]) -> Callable[[Asked], Plan]:
        return lambda item: member_plan(index=places[name_of(item)], n_experts=len(extra))

    return {
        "uniform": uniform_way(opened, wording),
        PLAIN: uniform_way(opened, replace(wording, blend=0.0)),
        P_SOUPS: Way(extra_engine, told(member(_mean_name))),
        "soup-1": Way(engine, told(soup(1.0))),
        "soup-2": Way(engine, told(soup(2.0))),
        "prompting": Way(engine, told(reference)),
        "base": Way(engine, silent(reference)),
        "soup-1-silent": Way(engine, silent(soup(1.0))),
        "soup-2-silent": Way(engine, silent(soup(2.0))),
    }


def mean_adapter(adapters: list[Adapter]) -> dict[str, Factor]:
    """The means of the A and of the B, which is not the mean of the products.

    Source:
        Personalized Soups, arXiv 2310.11564, as published: parameters of the adapters are averaged.
    """
    return {
        layer: Factor(
            torch.stack([adapter[layer].down for adapter in adapters]).mean(dim=0),
            torch.stack([adapter[layer].up for adapter in adapters]).mean(dim=0),
            adapters[0][layer].scale,
        )
        for layer in adapters[0]
    }


def _mean_adapters(opened: Opened) -> Mapping[str, Adapter]:
    folders = opened.library.expert_folders()
    adapters = [load_adapter(folder) for folder in folders.values()]
    return {
        _mean_name(item): mean_adapter([adapters[k] for k in item.wanted])
        for item in everybody(opened, ("any",))
    }


def _mean_name(item: Asked) -> str:
    return "mean-" + "-".join(map(str, item.wanted))


def _sampling() -> Sampling:
    return Sampling(temperature=1.0, max_tokens=MAX_ANSWER_TOKENS)
