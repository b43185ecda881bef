"""Users who are known by a few comparisons only: beliefs as the server would learn them.

A user compares pairs of the base's answers to training prompts, taken from the library's rollouts.
What decides is the user's true utility, which the learner does not see: what a judge that is a
function says, or else the library's rewards. The user is noisy: one answer in ten is a coin flip,
the others follow Bradley-Terry at a temperature of a tenth. The learner is the server's: it sees
`beta * (log p_k - log p_0)` of the first answer less the second's, for every expert.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.seeds import generator_for
from palate.core.types import Belief, Feedback, Preference
from palate.evaluate.judges import Candidate, SuiteJudge
from palate.evaluate.suite import UserSettings
from palate.library.features import scored_text
from palate.library.library import Library
from palate.preferences.simulated import SimulatedUser
from palate.rewards.texts import messages_of
from palate.training.rollouts import Rollout, read_rollouts

GAIN = 10.0  # one over the temperature of the user's choices, per unit of utility
LAPSE = 0.1


@dataclass(eq=False)
class Comparisons:
    """Simulated users of one library, and what is learned of them."""

    library: Library  # with rollouts
    seed: int  # of the pairs and of the users' noise
    truth: SuiteJudge | None = None  # decides; None: the library's rewards
    _features: dict[tuple[int, ...], list[float]] = field(
        default_factory=dict[tuple[int, ...], list[float]]
    )
    _beliefs: dict[tuple[str, int], Belief] = field(default_factory=dict[tuple[str, int], Belief])

    def belief(self, user: UserSettings, *, n_comparisons: int) -> Belief:
        """What is believed of the user after so many comparisons.

        More comparisons hold the first ones again, so a curve over their number is one user's.

        Raises:
            FormatError: the library has no rollouts.
            InvalidInputError: they hold no two different answers to one prompt.
        """
        key = (user.name, n_comparisons)
        if key not in self._beliefs:
            history = self.feedback(user, n_comparisons=n_comparisons)
            self._beliefs[key] = self.library.soups.learner().rebuild(history)
        return self._beliefs[key]

    def feedback(self, user: UserSettings, *, n_comparisons: int) -> list[Feedback]:
        """The user's comparisons, in order."""
        names = self.library.manifest.objective_names
        shares = Preference.from_mapping(user.preference, objectives=names).vector()
        chooser = SimulatedUser(shares, gain=GAIN, lapse_share=LAPSE)
        generator = generator_for(self.seed, "comparisons", user.name)
        history: list[Feedback] = []
        while len(history) < n_comparisons:
            first, second = self._pair(generator)
            label = chooser.compare(self._rewards(first, second), generator=generator)
            features = np.array(self._features_of(first)) - np.array(self._features_of(second))
            item = Feedback(user.name, "comparison", tuple(features.tolist()), label)
            history.append(item)
        return history

    def _pair(self, generator: np.random.Generator) -> tuple[Rollout, Rollout]:
        """Two different answers to one prompt."""
        prompts = list(self._by_prompt)
        while True:
            rows = self._by_prompt[prompts[int(generator.integers(len(prompts)))]]
            first, second = (
                rows[int(k)] for k in generator.choice(len(rows), size=2, replace=False)
            )
            if first.completion != second.completion:
                return first, second

    @cached_property
    def _by_prompt(self) -> dict[str, list[Rollout]]:
        """Rollouts by prompt, where at least two differ."""
        names = self.library.manifest.objective_names
        by_prompt: dict[str, list[Rollout]] = {}
        for row in read_rollouts(self.library.files.rollouts_path, objectives=names):
            by_prompt.setdefault(row.prompt, []).append(row)
        several = [p for p, rows in by_prompt.items() if len({row.completion for row in rows}) > 1]
        if not several:
            raise InvalidInputError(
                f"The rollouts of the library {str(self.library.files.folder)!r} hold no two "
                "different answers to one prompt, so nothing can be compared; leave out the "
                "methods METHOD@N."
            )
        return {prompt: by_prompt[prompt] for prompt in several}

    def _rewards(self, first: Rollout, second: Rollout) -> Float[ndarray, " objectives"]:
        """`[objectives]`: by how much the first is truly better."""
        if self.truth is None:
            return np.array(first.rewards) - np.array(second.rewards)
        judged = self.truth.judge([Candidate(r.prompt, r.completion, "") for r in (first, second)])
        return judged.rewards[0] - judged.rewards[1]

    def _features_of(self, row: Rollout) -> list[float]:
        """The answer's features, computed once."""
        library = self.library
        item = scored_text(library.base, messages_of(row.prompt), "")
        key = (*item.context, -1, *row.tokens)
        if key not in self._features:
            self._features[key] = library.features(item.context, [row.tokens])[0]
        return self._features[key]
