"""The rest of the demo's story: few policies for everybody, one user learned, tokens explained.

Each part is one paper's, on the library that the demo has just built:

- portfolio: every policy that the demo shows is priced by the library's rewards on prompts that no
  expert was trained on; for each number of members the best are kept and certified;
- user: someone of whom nothing is known compares pairs of answers; after some of them the gold
  rules judge what is served;
- mixture: one answer drawn from three experts in equal shares, and who wrote which token.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.build.grow import without_errors
from palate.build.payoff_job import PayoffEstimator
from palate.build.soup_feedback import Shown
from palate.build.soup_fitting import learner_of, shown_log_ratios
from palate.core.decision import Known
from palate.core.plan import Plan, reference_plan
from palate.core.progress import progress_of
from palate.core.protocols import Request, SamplingParams
from palate.core.seeds import derive_seed, generator_for
from palate.core.types import Belief, Feedback
from palate.engine.detokenize import token_texts
from palate.library.library import Library
from palate.library.rewards import library_rewards
from palate.library.soup import open_basis
from palate.metrics.intervals import bootstrap_interval
from palate.mixture.explain import explain
from palate.portfolio.choice import PortfolioRequest, choose
from palate.portfolio.gap import additive_gap
from palate.portfolio.payoffs import Measurements, payoffs_from_measurements
from palate.portfolio.terms import Terms
from palate.preferences.belief import Learner
from palate.preferences.questions import select_informative
from palate.preferences.simulated import SimulatedUser
from palate.soup.basis_file import SoupBasis
from research.mixture.plans import mixture_plan
from research.world.demo_page import Cell, LearnedStory, MixtureStory, PortfolioStory
from research.world.gold import gold_rewards
from research.world.judged import Entry, Judged, judge_entries
from research.world.objectives import USERS, User
from research.world.prompts import MAX_ANSWER_TOKENS, format_prompt, further_prompts

N_PRICED = 192  # prompts behind the payoff table: half choose, half certify
MOST_MEMBERS = 8
COMPARISONS = (0, 3, 10, 30)
ANSWERS_SHOWN = 4  # to each prompt that the learned user compares answers to
LABEL_GAIN = 10.0  # log-odds of a label per unit of utility
LEARNED, MIXED = USERS[5], USERS[4]  # Freya is learned; Emeka's answer is mixed


def portfolio_story(opened: Library, *, seed: int) -> PortfolioStory:
    """What anybody loses by having only so many of the demo's policies."""
    manifest, plans = opened.manifest, _policies(opened)
    generator = generator_for(seed, "demo", "priced")
    pool = further_prompts()
    prompts = tuple(pool[k] for k in generator.permutation(len(pool))[:N_PRICED])
    estimator = PayoffEstimator(
        base=opened.base,
        prompts=prompts,
        reward=library_rewards(opened.files),
        reward_key="library",
        n_answers=1,
        max_tokens=MAX_ANSWER_TOKENS,
        seed=derive_seed(seed, "demo", "priced"),
    )
    found = []
    with progress_of("price policies") as report:
        for plan in plans.values():
            found.append(estimator.measure(plan, opened.bank))
            report(len(found), len(plans))
    measurements = Measurements(
        objectives=manifest.objective_names,
        policies=tuple(plans),
        rewards=np.stack([one.rewards for one in found]),
        kl=np.stack([one.kl for one in found]),
        beta=manifest.beta,
    )
    chosen_on, reported = (
        payoffs_from_measurements(part) for part in _halves(measurements, generator=generator)
    )
    estimates, terms = without_errors(chosen_on), Terms(criterion="additive")
    records = [
        choose(estimates, request=PortfolioRequest(size=size), terms=terms, report=reported)
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


def _policies(opened: Library) -> dict[str, Plan]:
    """The base, every expert and every user's soup, as plans that a certificate can speak of."""
    plans = {"base": opened.decide("", method="base").plan}
    for name in opened.bank.names:
        plans[name] = opened.decide("", Known(coefficients={name: 1.0}), method="soup").plan
    for user in USERS:
        shares = dict(zip(opened.manifest.objective_names, user.preference.shares, strict=True))
        plans[user.name] = opened.decide("", Known(preference=shares), method="soup").plan
    return plans


def learned_story(
    opened: Library, known: Entry, prompts: Sequence[str], *, seed: int
) -> LearnedStory:
    """One user from nothing: what is served after some comparisons, judged by the gold rules.

    Args:
        opened: The library, with its `soup.json`.
        known: What the user is served when the preference is known.
        prompts: Held-out prompts that judge.
        seed: Random seed of pairs, verdicts and answers.
    """
    basis = open_basis(opened.files)
    shown = _shown(opened, seed=seed)
    features = basis.features(shown_log_ratios(opened.base, opened.files, shown))
    learner = learner_of(basis)
    feedback = _compared(learner, shown, features, seed=seed)
    entries = {
        str(n): (Known(belief=_raw(learner.rebuild(feedback[:n]), basis)), "auto")
        for n in COMPARISONS
    }
    judged = judge_entries(opened, {**entries, "known": known}, prompts, seed=seed)
    return LearnedStory(
        user=LEARNED.name,
        label=LEARNED.label,
        comparisons=COMPARISONS,
        utilities=tuple(_utility(judged[str(n)], LEARNED, seed=seed) for n in COMPARISONS),
        known=_utility(judged["known"], LEARNED, seed=seed),
        answers=tuple(judged[str(n)].texts[0].strip() for n in COMPARISONS),
    )


def _raw(belief: Belief, basis: SoupBasis) -> Belief:
    """A belief over scaled features as one over coefficients, which libraries read."""
    scales = basis.feature_scales
    covariance = belief.covariance / np.outer(scales, scales)
    return Belief(belief.mean / scales, covariance, belief.n_observations, belief.gain)


def mixture_story(opened: Library, prompt: str, *, seed: int) -> MixtureStory:
    """One answer under three experts in equal shares, token by token."""
    names = opened.bank.names
    wanted = [names.index(objective.name) for objective in MIXED.objectives]
    plan = mixture_plan(experts=wanted, n_experts=len(names), shares=[1 / 3] * 3)
    request = Request(
        opened.format(prompt), plan, SamplingParams(max_tokens=MAX_ANSWER_TOKENS), seed
    )
    (traced,) = opened.engine.trace([request])
    tokens = traced.completion.tokens
    explanation = explain(
        prompt=prompt,
        experts=[names[k] for k in wanted],
        texts=[
            "" if token in opened.base.stop_ids else text
            for token, text in zip(tokens, token_texts(opened.base, tokens), strict=True)
        ],
        shares=traced.shares,
        expert_log_probs=traced.row_log_probs,
    )
    return MixtureStory(MIXED.name, MIXED.label, explanation)


def _shown(opened: Library, *, seed: int) -> list[Shown]:
    """Fresh answers of the base, `ANSWERS_SHOWN` different ones to each of some prompts."""
    pool = further_prompts()
    order = generator_for(seed, "demo", "shown").permutation(len(pool))
    asked = [(pool[k], copy) for k in order[: max(COMPARISONS)] for copy in range(ANSWERS_SHOWN)]
    plan = reference_plan(n_experts=opened.bank.n_experts)
    answers = opened.engine.generate(
        [
            Request(
                format_prompt(text),
                plan,
                SamplingParams(max_tokens=MAX_ANSWER_TOKENS),
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
    """What the user says of one pair a prompt, each the one that tells most."""
    generator = generator_for(seed, "demo", "said")
    utilities = _wanted(gold_rewards([answer.text for answer in shown]), LEARNED)
    user = SimulatedUser(np.ones(1), gain=LABEL_GAIN)
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
        label = user.compare(np.array([utilities[first] - utilities[second]]), generator=generator)
        said.append(
            Feedback(LEARNED.name, "comparison", tuple(differences[best].tolist()), label=label)
        )
    return said


def _wanted(gold: Float[ndarray, "answers objectives"], user: User) -> Float[ndarray, " n"]:
    """The user's utility: the mean of the three gold rewards they want."""
    return gold @ user.preference.vector()


def _utility(judged: Judged, user: User, *, seed: int) -> Cell:
    found = bootstrap_interval(
        _wanted(judged.gold, user),
        clusters=judged.prompt,
        generator=generator_for(seed, "demo", "utility"),
    )
    return Cell(found.estimate, found.low, found.high, is_wanted=True)


def _halves(
    measurements: Measurements, *, generator: np.random.Generator
) -> tuple[Measurements, Measurements]:
    """The prompts split at random: one half to select on, the other to report on."""
    n_prompts = measurements.kl.shape[1]
    order = generator.permutation(n_prompts)
    parts = (np.sort(order[: n_prompts // 2]), np.sort(order[n_prompts // 2 :]))
    first, second = (
        replace(measurements, rewards=measurements.rewards[:, part], kl=measurements.kl[:, part])
        for part in parts
    )
    return first, second
