"""A preference learned from a few comparisons by the person, as a served soup would learn it.

The person is shown pairs of the base's answers to training prompts and says which is better. What
decides is the person's true utility, which the learner does not see: in the small world the gold
rules' value, elsewhere the library's rewards. The person is noisy: one answer in ten is a coin
flip, the others follow Bradley-Terry at a temperature of a tenth. The learner sees what the reward
models say of the two answers.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.seeds import generator_for
from palate.core.simplex import require_simplex
from palate.evaluate.suite import WORLD, PersonSettings
from palate.experts.rollouts import read_rollouts
from palate.people.preference import fit_preference, normal_on_plane
from palate.people.simulated import SimulatedPerson
from palate.recipes.evaluate_kit import Kit
from palate.world.gold import gold_rewards

GAIN = 10.0  # one over the temperature of the person's choices, per unit of utility
LAPSE = 0.1


def learned_preference(
    kit: Kit, person: PersonSettings, *, n_comparisons: int
) -> Float[ndarray, " objectives"]:
    """The preference most probable after so many comparisons; equal shares after none.

    More comparisons hold the first ones again, so a curve over their number is one person's.
    """
    n_objectives = len(kit.objectives)
    if not n_comparisons:
        return np.full(n_objectives, 1.0 / n_objectives)
    rollouts = read_rollouts(kit.opened.library.rollouts_path, objectives=kit.objectives)
    by_prompt: dict[str, list[int]] = {}
    for place, row in enumerate(rollouts):
        by_prompt.setdefault(row.prompt, []).append(place)
    generator = generator_for(kit.seed, "comparisons", person.name)
    prompts = list(by_prompt)
    chooser = SimulatedPerson(kit.shares(person), gain=GAIN, lapse_share=LAPSE)
    features: list[Float[ndarray, " objectives"]] = []
    labels: list[float] = []
    while len(labels) < n_comparisons:
        places = by_prompt[prompts[int(generator.integers(len(prompts)))]]
        first, second = (rollouts[int(k)] for k in generator.choice(places, size=2, replace=False))
        if first.completion == second.completion:
            continue
        seen = np.array(first.rewards) - np.array(second.rewards)
        true = seen
        if kit.suite.library == WORLD:
            gold = gold_rewards([first.completion, second.completion])
            true = gold[0] - gold[1]
        features.append(seen)
        labels.append(chooser.compare(true, generator=generator))
    found = fit_preference(
        np.array(features),
        np.array(labels),
        prior=normal_on_plane(n_objectives=n_objectives),
        gain=GAIN,
    )
    return require_simplex(np.clip(found.mean, 0.0, None) / np.clip(found.mean, 0.0, None).sum())
