"""The mixture and its rivals in the small world, as requests to engines.

Everybody answers the same prompts for the same eight users with the same seeds:

    controller      the library's trained controller over the user's three experts
    ppo, ...        other controllers, given by the caller
    uniform         the same rows with equal shares at every token
    static          the same rows with the best constant shares, learned by REBEL from as many
                    answers
    p-soups         one adapter per user whose A and whose B are the means of the three experts'
                    (Personalized Soups as coded)
    soup-1, soup-2  the parameter soup of a third, or two thirds, on each of the three experts
    prompting       the base
    morl            one adapter for everybody

All of these read the user's three preference sentences, and so does `uniform-plain`, equal shares
of rows that are one expert each; `base`, `soup-1-silent` and `soup-2-silent` read none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from palate import Library
from palate.core.decision import Decision, Known, Messages, with_instruction
from palate.core.plan import Plan, member_plan, parameter_soup_plan, reference_plan
from palate.core.protocols import SamplingParams
from palate.core.seeds import derive_seed
from palate.engine.bank import AdapterBank
from palate.engine.control import Controller
from palate.library.controller import LibraryController, strengths_for
from palate.library.generate import generate_all
from palate.methods.mixture import MixtureMethod
from palate.mixture.wording import MixtureRequest, Wording
from palate.models.adapter import Adapter, load_adapter
from research.soup.rivals import factor_means
from research.world.objectives import USERS
from research.world.prompts import MAX_ANSWER_TOKENS

MORL, P_SOUPS = "morl", "p-soups"
PROMPTED = ("p-soups", "soup-1", "soup-2", "prompting", "morl")  # rivals that read all sentences
RIVALS = ("uniform", "static", *PROMPTED)  # what the headline averages over
PLAIN = "uniform-plain"
BESIDE = (PLAIN, "base", "soup-1-silent", "soup-2-silent")

PlanOf = Callable[[MixtureRequest], Plan]


@dataclass(frozen=True, eq=False)
class StudyMethod:
    """A method of the study: a plan from strengths, read with or without the sentences.

    Attributes:
        name: For tables.
        wording: Gives the sentences; `None` reads the prompt alone.
        plan_of: Prompt and strengths to a plan.
    """

    name: str
    wording: Wording | None
    plan_of: PlanOf

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The plan for the strengths that the preference comes to."""
        asked = MixtureRequest(messages, strengths_for(library.manifest, known.preference or {}))
        sentence = "" if self.wording is None else self.wording.preference(asked)
        return Decision(with_instruction(messages, sentence), self.plan_of(asked), self.name)


@dataclass(frozen=True, eq=False)
class Entrant:
    """A method with the library that it decides from.

    Attributes:
        library: The study's library, or one with other experts or another controller.
        method: Decides.
    """

    library: Library
    method: StudyMethod | MixtureMethod

    def answers(self, items: list[MixtureRequest], *, seed: int) -> list[str]:
        """One answer per item; a prompt has one seed per user, the same for all methods."""
        names = self.library.manifest.objective_names
        owners = self.library.manifest.anchors().argmax(axis=1)
        decisions: list[Decision] = []
        for item in items:
            shares = {names[owners[k]]: item.strengths[k] for k in item.wanted}
            known = Known(preference=shares)
            decisions.append(self.library.decide(item.prompt, known, method=self.method))
        seeds = [derive_seed(seed, str(item.prompt), *map(str, item.wanted)) for item in items]
        outputs = generate_all(self.library, decisions, sampling=_sampling(), seeds=seeds)
        return [output.text for output in outputs]


def everybody(opened: Library, prompts: tuple[str, ...]) -> list[MixtureRequest]:
    """Every prompt for every user, prompt by prompt."""
    manifest = opened.manifest
    wanted = [
        strengths_for(manifest, {objective.name: 1 / 3 for objective in user.objectives})
        for user in USERS
    ]
    return [MixtureRequest(prompt, strengths) for prompt in prompts for strengths in wanted]


def controlled_entrant(opened: Library, wording: Wording, decoding: Controller) -> Entrant:
    """The mixture under a controller, trained or constant."""
    controller = LibraryController(wording, decoding, trained=())
    other = Library(opened.files, opened.base, opened.bank, methods=opened.methods)
    other.__dict__["controller"] = controller  # in place of the cached one
    return Entrant(other, MixtureMethod())


def uniform_entrant(opened: Library, wording: Wording, *, name: str = "uniform") -> Entrant:
    """Equal shares at every token."""
    return Entrant(opened, StudyMethod(name, wording, wording.plan))


def morl_entrant(opened: Library, wording: Wording, adapter: Adapter) -> Entrant:
    """The one adapter for everybody."""
    bank = AdapterBank(opened.base, {MORL: adapter})
    plan = member_plan(index=0, n_experts=1)
    return Entrant(
        Library(opened.files, opened.base, bank), StudyMethod(MORL, wording, lambda _: plan)
    )


def rivals(opened: Library, wording: Wording) -> dict[str, Entrant]:
    """All entrants but those that are trained for the study, by name."""
    n_experts = opened.bank.n_experts
    extra = _mean_adapters(opened)
    means = Library(opened.files, opened.base, AdapterBank(opened.base, extra))
    places = {name: place for place, name in enumerate(extra)}

    def soup(strength: float) -> PlanOf:
        return lambda item: parameter_soup_plan([strength * s for s in item.strengths])

    def reference(_item: MixtureRequest) -> Plan:
        return reference_plan(n_experts=n_experts)

    def mean(item: MixtureRequest) -> Plan:
        return member_plan(index=places[_mean_name(item)], n_experts=len(extra))

    plain = Wording(wording.base, wording.instructions, wording.prompts, wording.pool, blend=0.0)
    methods = [
        StudyMethod("soup-1", wording, soup(1.0)),
        StudyMethod("soup-2", wording, soup(2.0)),
        StudyMethod("prompting", wording, reference),
        StudyMethod("base", None, reference),
        StudyMethod("soup-1-silent", None, soup(1.0)),
        StudyMethod("soup-2-silent", None, soup(2.0)),
    ]
    return {
        "uniform": uniform_entrant(opened, wording),
        PLAIN: uniform_entrant(opened, plain, name=PLAIN),
        P_SOUPS: Entrant(means, StudyMethod(P_SOUPS, wording, mean)),
        **{method.name: Entrant(opened, method) for method in methods},
    }


def _mean_adapters(opened: Library) -> Mapping[str, Adapter]:
    folders = opened.files.expert_folders()
    adapters = [load_adapter(folder) for folder in folders.values()]
    return {
        _mean_name(item): factor_means(
            [adapters[k] for k in item.wanted], [1.0 / len(item.wanted)] * len(item.wanted)
        )
        for item in everybody(opened, ("any",))
    }


def _mean_name(item: MixtureRequest) -> str:
    return "mean-" + "-".join(map(str, item.wanted))


def _sampling() -> SamplingParams:
    return SamplingParams(temperature=1.0, max_tokens=MAX_ANSWER_TOKENS)
