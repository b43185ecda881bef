"""The rest of the demo's story: few policies for everybody, one person learned, tokens told apart.

Each part is one paper's, on the library that the demo has just built:

- portfolio: every policy that the demo shows is priced by the library's rewards on prompts that no
  expert was trained on; for each number of members the best are kept and certified;
- person: someone of whom nothing is known compares pairs of answers; after some of them the gold
  rules judge what is served;
- mixture: one answer drawn from three experts in equal shares, and who wrote which token.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.plan import Plan, mixture_plan, reference_plan
from palate.core.protocols import Request, Sampling
from palate.core.seeds import derive_seed, generator_for
from palate.core.types import Feedback
from palate.evaluate.demo_page import Cell, LearnedStory, MixtureStory, PortfolioStory
from palate.metrics.intervals import bootstrap_interval
from palate.mixture.explain import explain
from palate.people.belief import Learner
from palate.people.questions import select_informative
from palate.people.simulated import SimulatedPerson
from palate.portfolio.choice import Wish, choose
from palate.portfolio.gap import additive_gap
from palate.portfolio.payoffs import Measurements, halves, payoffs_from_measurements
from palate.portfolio.terms import Terms
from palate.recipes.opened import Opened
from palate.recipes.palm_grow import further_world_prompts, without_errors
from palate.recipes.palm_meter import Meter
from palate.recipes.progress import progress_of
from palate.recipes.reward_sources import library_rewards
from palate.recipes.soup_basis import calibration_states, open_basis, shown_log_ratios, write_soup
from palate.recipes.soup_feedback import Shown
from palate.recipes.soup_fit import learner_of
from palate.recipes.world_judged import Judged, judge_plans
from palate.serve.words import token_texts
from palate.soup.personal import personal_soup
from palate.world.gold import gold_rewards
from palate.world.objectives import PEOPLE, Person
from palate.world.prompts import MAX_ANSWER_TOKENS, format_prompt

N_PRICED = 192  # prompts behind the payoff table: half choose, half certify
MOST_MEMBERS = 8
COMPARISONS = (0, 3, 10, 30)
ANSWERS_SHOWN = 4  # to each prompt that the learned person compares answers to
LABEL_GAIN = 10.0  # log-odds of a label per unit of utility
LEARNED, MIXED = PEOPLE[5], PEOPLE[4]  # Freya is learned; Emeka's answer is mixed


def portfolio_story(opened: Opened, plans: dict[str, Plan], *, seed: int) -> PortfolioStory:
    """What anybody loses by having only so many of the demo's policies."""
    manifest = opened.library.manifest
    generator = generator_for(seed, "demo", "priced")
    pool = further_world_prompts()
    prompts = tuple(pool[k] for k in generator.permutation(len(pool))[:N_PRICED])
    meter = Meter(
        base=opened.base,
        prompts=prompts,
        reward=library_rewards(opened.library),
        reward_key="library",
        n_answers=1,
        max_tokens=MAX_ANSWER_TOKENS,
        seed=derive_seed(seed, "demo", "priced"),
    )
    found = []
    with progress_of("price policies") as report:
        for plan in plans.values():
            found.append(meter.measure(plan, opened.bank))
            report(len(found), len(plans))
    measurements = Measurements(
        objectives=manifest.objective_names,
        policies=tuple(plans),
        rewards=np.stack([one.rewards for one in found]),
        kl=np.stack([one.kl for one in found]),
        beta=manifest.beta,
    )
    chosen_on, reported = (
        payoffs_from_measurements(part) for part in halves(measurements, generator=generator)
    )
    terms = Terms(criterion="additive")
    records = [
        choose(without_errors(chosen_on), wish=Wish(size=size), terms=terms, report=reported)
        for size in range(1, min(MOST_MEMBERS, len(plans) - 1) + 1)
    ]
    values = reported.table.values
    return PortfolioStory(
        members=tuple(record.members for record in records),
        certified=tuple(
            gap
            for record in records
            if (gap := record.certified.certificate.additive_gap) is not None
        ),  # of every size: the curve ends before all policies are members
        estimated=tuple(
            additive_gap(members=values[record.indices()], rows=values).value for record in records
        ),
        n_policies=len(plans),
        confidence=terms.confidence,
        n_prompts=N_PRICED,
    )


def learned_story(
    opened: Opened, known: Plan, prompts: Sequence[str], *, seed: int
) -> LearnedStory:
    """One person from nothing: what is served after some comparisons, judged by the gold rules.

    Args:
        opened: The library; its `soup.json` is written.
        known: What the person is served when the preference is known.
        prompts: Held-out prompts that judge.
        seed: Of everything.
    """
    write_soup(opened.library.folder)
    basis, states = open_basis(opened.library), calibration_states(opened)
    shown = _shown(opened, seed=seed)
    features = basis.features(shown_log_ratios(opened.base, opened.library, shown))
    learner = learner_of(basis)
    said = _compared(learner, shown, features, seed=seed)
    plans = {
        str(n): personal_soup(
            learner.rebuild(said[:n]), basis=basis, states=states, way="soup"
        ).plan
        for n in COMPARISONS
    }
    judged = judge_plans(opened.engine, {**plans, "known": known}, prompts, seed=seed)
    return LearnedStory(
        person=LEARNED.name,
        label=LEARNED.label,
        comparisons=COMPARISONS,
        utilities=tuple(_utility(judged[str(n)], LEARNED, seed=seed) for n in COMPARISONS),
        known=_utility(judged["known"], LEARNED, seed=seed),
        answers=tuple(judged[str(n)].texts[0].strip() for n in COMPARISONS),
    )


def mixture_story(opened: Opened, prompt: str, *, seed: int) -> MixtureStory:
    """One answer under three experts in equal shares, token by token."""
    names = opened.bank.names
    wanted = [names.index(objective.name) for objective in MIXED.objectives]
    plan = mixture_plan(experts=wanted, n_experts=len(names), shares=[1 / 3] * 3)
    request = Request(
        format_prompt(prompt), plan, Sampling(max_tokens=MAX_ANSWER_TOKENS), seed=seed
    )
    (traced,) = opened.engine.trace([request])
    tokens = traced.completion.tokens
    told = explain(
        prompt=prompt,
        experts=[names[k] for k in wanted],
        texts=[
            "" if token in opened.base.stop_ids else text
            for token, text in zip(tokens, token_texts(opened.base, tokens), strict=True)
        ],
        shares=traced.shares,
        expert_log_probs=traced.row_log_probs,
    )
    return MixtureStory(MIXED.name, MIXED.label, told)


def _shown(opened: Opened, *, seed: int) -> list[Shown]:
    """Fresh answers of the base, `ANSWERS_SHOWN` different ones to each of some prompts."""
    pool = further_world_prompts()
    order = generator_for(seed, "demo", "shown").permutation(len(pool))
    asked = [(pool[k], copy) for k in order[: max(COMPARISONS)] for copy in range(ANSWERS_SHOWN)]
    plan = reference_plan(n_experts=opened.bank.n_experts)
    answers = opened.engine.generate(
        [
            Request(
                format_prompt(text),
                plan,
                Sampling(max_tokens=MAX_ANSWER_TOKENS),
                seed=derive_seed(seed, "demo", "shown", text, copy),
            )
            for text, copy in asked
        ]
    )
    pairs = zip(asked, answers, strict=True)
    return list(dict.fromkeys(Shown(text, answer.text) for (text, _), answer in pairs))


def _compared(
    learner: Learner,
    shown: Sequence[Shown],
    features: Float[ndarray, "answers experts"],
    *,
    seed: int,
) -> list[Feedback]:
    """What the person says of one pair a prompt, each the one that tells most."""
    generator = generator_for(seed, "demo", "said")
    utilities = _wanted(gold_rewards([answer.text for answer in shown]), LEARNED)
    person = SimulatedPerson(np.ones(1), gain=LABEL_GAIN)
    by_prompt: dict[str, list[int]] = {}
    for place, answer in enumerate(shown):
        by_prompt.setdefault(answer.prompt, []).append(place)
    said: list[Feedback] = []
    for places in by_prompt.values():
        pairs = list(combinations(places, 2))
        if not pairs:
            continue
        differences = np.array([features[a] - features[b] for a, b in pairs])
        best = select_informative(learner.rebuild(said), differences, gain=learner.settings.gain)
        first, second = pairs[best]
        label = person.compare(
            np.array([utilities[first] - utilities[second]]), generator=generator
        )
        said.append(
            Feedback(LEARNED.name, "comparison", tuple(differences[best].tolist()), label=label)
        )
    return said


def _wanted(gold: Float[ndarray, "answers objectives"], person: Person) -> Float[ndarray, " n"]:
    """The person's utility: the mean of the three gold rewards they want."""
    return gold @ person.preference.vector()


def _utility(judged: Judged, person: Person, *, seed: int) -> Cell:
    found = bootstrap_interval(
        _wanted(judged.gold, person),
        clusters=judged.prompt,
        generator=generator_for(seed, "demo", "utility"),
    )
    return Cell(found.estimate, found.low, found.high, is_wanted=True)
