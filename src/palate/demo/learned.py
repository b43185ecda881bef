"""One user learned from verdicts on pairs of answers, by the functions that the server calls."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import ndtri

from palate.core.decision import Decision, Known
from palate.core.progress import note, progress_of
from palate.core.seeds import generator_for
from palate.core.types import Belief, Feedback, Interval
from palate.demo.answers import Judge, Writer, mean_interval
from palate.demo.report import DemoUser, LearnedStory, Wanted
from palate.library.features import features_of
from palate.library.generate import Output
from palate.models.chat import encode_prompt
from palate.preferences.questions import select_informative
from palate.preferences.simulated import SimulatedUser

N_EXPERTS = 2  # whose answers are compared at a prompt, beside the base's
LABEL_GAIN = 10.0  # log-odds of a verdict per unit of utility
SHORT = 40  # tokens of an answer
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
        judge.score(held_out, [one.text for one in answers])
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
    outputs = writer.write(decisions, name="answers to compare", max_tokens=SHORT)
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
            utilities = judge.score([prompt] * size, texts) @ judge.shares(user)
            belief = learner.rebuild(verdicts)
            best = select_informative(belief, differences, gain=belief.gain)
            margin = utilities[first[best]] - utilities[second[best]]
            label = simulated.compare(np.array([margin]), generator=generator)
            n_agreeing += int((margin > 0) == (label > 0))
            difference = tuple(differences[best].tolist())
            verdicts.append(Feedback(user.name, "comparison", difference, label=label))
            report(place + 1, len(prompts))
    return verdicts, n_agreeing


def _believed(belief: Belief, anchors: Float[ndarray, "experts objectives"]) -> list[Interval]:
    """What the belief holds of every objective, 95 %."""
    means, n = anchors.T @ belief.mean, belief.n_observations
    halves = _HALF_WIDTH * np.sqrt(np.diag(anchors.T @ belief.covariance @ anchors))
    ends = zip(means.tolist(), (means - halves).tolist(), (means + halves).tolist(), strict=True)
    return [Interval(*one, n, n) for one in ends]
