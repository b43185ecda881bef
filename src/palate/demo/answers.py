"""The demo's answers, and what users gain by rewards that taught nothing.

Every decision is `Library.decide`'s, and no answer is sampled twice. Gains are measured on prompts
that nothing was trained on. One user is learned from verdicts on pairs of answers, by the functions
that the server calls.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

from palate.core.decision import AUTO, Decision, Known, last_user_text
from palate.core.progress import note, progress_of
from palate.core.seeds import derive_seed, generator_for
from palate.core.simplex import vector_from_mapping
from palate.core.types import Belief, Feedback, Interval
from palate.demo.report import DemoUser, Gain, Gains, LearnedStory, Wanted
from palate.library.features import features_of
from palate.library.generate import Output, generate_all
from palate.library.library import Library
from palate.metrics.intervals import bootstrap_interval
from palate.models.chat import encode_prompt
from palate.preferences.questions import select_informative
from palate.preferences.simulated import SimulatedUser
from palate.rewards.reward import RewardVector

MAX_TOKENS = 90  # of an answer
BASE, PROMPT = "base", "prompt"
_BATCH = 64  # answers between two lines of progress
Place = tuple[str, str, str]  # method, name of the user (empty for the base), prompt


class Writer:
    """Samples answers in batches and keeps them; equal plans give one answer to a prompt."""

    def __init__(self, library: Library, *, seed: int) -> None:
        """Nothing is sampled yet."""
        self.library = library
        self.seed = seed
        self.sampling = replace(library.sampling, max_tokens=MAX_TOKENS)  # as users are served
        self._written: dict[Hashable, Output] = {}

    def write(self, decisions: Sequence[Decision], *, name: str) -> list[Output]:
        """The answers of these decisions, in order; `name` is what the progress line says."""
        keys = [self._key(decision) for decision in decisions]
        new = {k: one for k, one in zip(keys, decisions, strict=True) if k not in self._written}
        with progress_of(name) as report:
            for start in range(0, len(new), _BATCH):
                part = dict(list(new.items())[start : start + _BATCH])
                outputs = generate_all(
                    self.library,
                    list(part.values()),
                    sampling=self.sampling,
                    seeds=[self.seed_of(last_user_text(one.prompt)) for one in part.values()],
                )
                self._written.update(zip(part, outputs, strict=True))
                report(start + len(part), len(new))
        return [replace(self._written[k], decision=d) for k, d in zip(keys, decisions, strict=True)]

    def seed_of(self, prompt: str) -> int:
        """Seed of every answer to this prompt, the same for all users and methods."""
        return derive_seed(self.seed, "demo", prompt)

    def _key(self, decision: Decision) -> Hashable:
        ranking = (*decision.ranking.items(), *decision.learned_ranking.items())
        text = self.library.format(decision.messages)
        return text, decision.plan.normal_form(), decision.n_candidates, ranking


def answer_users(
    writer: Writer, users: Sequence[DemoUser], prompts: Sequence[str]
) -> dict[Place, Output]:
    """What every user gets to every prompt, beside the base and a system prompt.

    The system prompt is left out where the library's objectives have no words.
    """
    library, decisions = writer.library, dict[Place, Decision]()
    for prompt in prompts:
        decisions[BASE, "", prompt] = library.decide(prompt, method=BASE)
        for user in users:
            known = Known(preference=user.preference)
            decisions[AUTO, user.name, prompt] = library.decide(prompt, known)
            if library.instruction(known):
                decided = library.decide(prompt, known, method=PROMPT)
                decisions[PROMPT, user.name, prompt] = decided
    outputs = writer.write(list(decisions.values()), name="answers to users")
    return dict(zip(decisions, outputs, strict=True))


@dataclass(frozen=True)
class Judge:
    """The library's held-back rewards."""

    rewards: RewardVector
    self_judged: tuple[str, ...]  # objectives that have only the reward of training

    def shares(self, user: DemoUser) -> Float[np.ndarray, " objectives"]:
        """`[objectives]`: the user's preference."""
        return vector_from_mapping(user.preference, objectives=self.rewards.objectives)


def gains_story(
    library: Library,
    judge: Judge,
    users: Sequence[DemoUser],
    outputs: Mapping[Place, Output],
    *,
    seed: int,
) -> Gains:
    """Gains of `auto` over the base and over the system prompt, per user and together."""
    prompts = list(dict.fromkeys(prompt for *_, prompt in outputs))
    scores = judge.rewards.score(
        [place[2] for place in outputs], [one.text for one in outputs.values()]
    )
    rewards = dict(zip(outputs, scores, strict=True))
    has_words = all((PROMPT, user.name, prompts[0]) in outputs for user in users)
    rivals = (BASE, PROMPT) if has_words else (BASE,)

    def utilities(method: str, user: DemoUser) -> Float[np.ndarray, " prompts"]:
        name = "" if method == BASE else user.name
        return np.array([rewards[method, name, prompt] for prompt in prompts]) @ judge.shares(user)

    def gain(
        name: str,
        gaps: Float[np.ndarray, "users rivals prompts"],
        predicted: Interval | None = None,
    ) -> Gain:
        labels = prompts * len(gaps)
        intervals = [
            mean_interval(gaps[:, place].ravel(), labels, seed=seed, name=f"{name} {rival}")
            for place, rival in enumerate(rivals)
        ]
        return Gain(name, *intervals, predicted=predicted)

    gaps = np.array(
        [[utilities(AUTO, user) - utilities(rival, user) for rival in rivals] for user in users]
    )
    predicted = [outputs[AUTO, user.name, prompts[0]].decision.predicted_utility for user in users]
    table = library.method_table
    return Gains(
        users=tuple(
            gain(user.name, gaps[[place]], predicted[place]) for place, user in enumerate(users)
        ),
        together=gain("all together", gaps),
        n_prompts=len(prompts),
        self_judged=judge.self_judged,
        n_calibration=0 if table is None else table.n_prompts,
    )


def mean_interval(
    values: Float[np.ndarray, " answers"], prompts: Sequence[str], *, seed: int, name: str
) -> Interval:
    """Mean of `[answers]` with its 95 % interval over their prompts."""
    generator = generator_for(seed, "demo", "interval", name)
    return bootstrap_interval(values, clusters=prompts, generator=generator)


N_EXPERTS = 2  # whose answers are compared at a prompt, beside the base's
LABEL_GAIN = 10.0  # log-odds of a verdict per unit of utility
_HALF_WIDTH = float(ndtri(0.975))  # of a 95 % interval, standard deviations


def learned_story(
    writer: Writer,
    judge: Judge,
    user: DemoUser,
    *,
    compared: Sequence[str],
    bases: Mapping[str, Output],
) -> LearnedStory:
    """What verdicts of a simulated user teach, and what the user is answered then.

    The judge's utilities decide verdicts, one a prompt of `compared`, and judge what was learned;
    nothing else of the user is known. `bases` are the base's answers by prompt: first the shown
    one, then those that judge.

    Raises:
        InvalidInputError: the library has no experts.
    """
    library = writer.library
    note("measure the trust region of soups, some seconds")
    verdicts, n_agreeing = _verdicts(writer, judge, user, compared)
    learner, basis = library.soups.learner(), library.basis
    known = Known(belief=learner.rebuild(verdicts))
    outputs = writer.write(
        [library.decide(prompt, known) for prompt in bases], name="answers to the learned user"
    )
    shown, *held_out = bases
    rewards = [
        judge.rewards.score(held_out, [one.text for one in answers])
        for answers in (outputs[1:], [bases[prompt] for prompt in held_out])
    ]
    gaps = (rewards[0] - rewards[1]) @ judge.shares(user)
    believed = [_believed(learner.posterior(part), basis.anchors) for part in ((), verdicts)]
    return LearnedStory(
        user=user,
        n_comparisons=len(verdicts),
        n_agreeing=n_agreeing,
        wanted=tuple(
            Wanted(name, user.preference.get(name, 0.0), *both)
            for name, *both in zip(basis.objectives, *believed, strict=True)
        ),
        before=bases[shown].text,
        after=outputs[0].text,
        method=outputs[0].method,
        gain=mean_interval(gaps, held_out, seed=writer.seed, name="learned"),
    )


def _verdicts(
    writer: Writer, judge: Judge, user: DemoUser, prompts: Sequence[str]
) -> tuple[list[Feedback], int]:
    """One verdict a prompt, on the pair that tells most; and how many follow utility."""
    library, generator = writer.library, generator_for(writer.seed, "demo", "verdicts")
    learner, simulated = library.soups.learner(), SimulatedUser(np.ones(1), gain=LABEL_GAIN)
    experts, decisions = library.require_experts(), list[Decision]()
    for prompt in prompts:
        chosen = generator.permutation(len(experts))[:N_EXPERTS]
        for own in (None, *(experts[k] for k in chosen)):
            known = Known(coefficients={name: float(name == own) for name in experts})
            decisions.append(library.decide(prompt, known, method="soup"))
    outputs = writer.write(decisions, name="answers to compare")
    size, verdicts, n_agreeing = len(outputs) // len(prompts), list[Feedback](), 0
    with progress_of("verdicts") as report:
        for place, prompt in enumerate(prompts):
            answers = outputs[place * size : (place + 1) * size]
            texts = [one.text for one in answers]
            pairs = [(i, j) for i, j in combinations(range(size), 2) if texts[i] != texts[j]]
            if not pairs:
                continue
            features = features_of(
                library.base,
                library.bank,
                beta=library.manifest.beta,
                context=encode_prompt(library.base, library.format(prompt)),
                answers=[one.completion.tokens for one in answers],
            )
            first, second = np.array(pairs).T
            differences = np.array(features)[first] - np.array(features)[second]
            utilities = judge.rewards.score([prompt] * size, texts) @ judge.shares(user)
            belief = learner.rebuild(verdicts)
            best = select_informative(belief, differences, gain=belief.gain)
            margin = utilities[first[best]] - utilities[second[best]]
            label = simulated.compare(np.array([margin]), generator=generator)
            n_agreeing += int((margin > 0) == (label > 0))
            difference = tuple(differences[best].tolist())
            verdicts.append(Feedback(user.name, "comparison", difference, label=label))
            report(place + 1, len(prompts))
    return verdicts, n_agreeing


def _believed(belief: Belief, anchors: Float[np.ndarray, "experts objectives"]) -> list[Interval]:
    """What the belief holds of every objective, 95 %."""
    means, n = anchors.T @ belief.mean, belief.n_observations
    halves = _HALF_WIDTH * np.sqrt(np.diag(anchors.T @ belief.covariance @ anchors))
    ends = zip(means.tolist(), (means - halves).tolist(), (means + halves).tolist(), strict=True)
    return [Interval(*one, n, n) for one in ends]
