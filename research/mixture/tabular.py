"""The control problem on token trees, where every controller's value is exact.

Experts are policies on one tree (`research.soup.trees`); a controller gives shares over the experts
in every state, one table `[states, experts]` per depth. Expected reward is linear in the shares of
one state, so backward recursion finds the best controller, and it is one-hot everywhere (M9): it
switches experts and never mixes.

Source:
    methods mope M9, 13 (yardstick C).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from palate.core.errors import InvalidInputError
from palate.core.simplex import lattice
from research.soup.trees import Policy, Values, answer_log_probs

Shares = tuple[Float[ndarray, "states experts"], ...]
"""One table per depth, each row on the simplex."""


@dataclass(frozen=True, eq=False)
class ControlProblem:
    """Experts on a tree and what whole answers are worth.

    Attributes:
        probs: One array `[experts, states, vocab]` per depth.
        rewards: `[answers]`, of whole answers, the last token running fastest.
    """

    probs: tuple[Float[ndarray, "experts states vocab"], ...]
    rewards: Float[ndarray, " answers"]

    @classmethod
    def of(cls, experts: Sequence[Policy], rewards: Float[ndarray, " answers"]) -> "ControlProblem":
        """The problem of mixing these policies.

        Raises:
            InvalidInputError: there is not one reward per answer.
        """
        probs = tuple(np.exp(np.stack(tables)) for tables in zip(*experts, strict=True))
        if rewards.shape != (probs[-1][0].size,):
            raise InvalidInputError(
                f"There are {rewards.shape} rewards for {probs[-1][0].size} answers; give one each."
            )
        return cls(probs, rewards)

    @property
    def n_experts(self) -> int:
        """Number of experts."""
        return len(self.probs[0])

    def constant(self, shares: Sequence[float] | Float[ndarray, " experts"]) -> Shares:
        """The controller that gives the same shares in every state."""
        row = np.asarray(shares, dtype=np.float64)
        return tuple(np.tile(row, (table.shape[1], 1)) for table in self.probs)

    def policy(self, shares: Shares) -> Policy:
        """The mixture's log-probabilities, one table per depth."""
        with np.errstate(divide="ignore"):
            return tuple(
                np.log(np.einsum("sn,nsv->sv", own, table))
                for own, table in zip(shares, self.probs, strict=True)
            )

    def value(self, shares: Shares) -> float:
        """Expected reward of the mixture."""
        return float(np.exp(answer_log_probs(self.policy(shares))) @ self.rewards)

    def expert_values(self, after: Values, depth: int) -> Float[ndarray, "states experts"]:
        """What each expert earns by writing the next token: `sum_v p_i(v | s) V(s + v)`."""
        table = self.probs[depth]
        following = after[depth + 1].reshape(table.shape[1:])
        return np.einsum("nsv,sv->sn", table, following)

    def optimal(self) -> tuple[Shares, float]:
        """The best controller, one-hot in every state, and its value (M9)."""
        values: list[Float[ndarray, " states"]] = [np.zeros(0)] * len(self.probs) + [self.rewards]
        shares: list[Float[ndarray, "states experts"]] = []
        for depth in reversed(range(len(self.probs))):
            each = self.expert_values(tuple(values), depth)
            shares.insert(0, np.eye(self.n_experts)[each.argmax(axis=1)])
            values[depth] = each.max(axis=1)
        return tuple(shares), float(values[0][0])

    def best_static(self) -> tuple[Float[ndarray, " experts"], float]:
        """The best shares that do not depend on the state, and their value.

        The value is a polynomial in the shares with several local maxima; a quasi-Newton search
        runs from every point of a lattice and from every single expert.
        """
        starts = lattice(n_objectives=self.n_experts, denominator=4)
        optima = [minimize(self._loss_of_scores, np.log(start + 1e-3)) for start in starts]
        best = np.asarray(softmax(min(optima, key=lambda result: result.fun).x))
        candidates = [best, *np.eye(self.n_experts)]
        values = [self.value(self.constant(shares)) for shares in candidates]
        place = int(np.argmax(values))
        return candidates[place], values[place]

    def _loss_of_scores(self, scores: Float[ndarray, " experts"]) -> float:
        return -self.value(self.constant(np.exp(log_softmax(scores))))


def share_entropy(shares: Shares, policy: Policy) -> float:
    """Mean entropy of the shares over the states as the policy visits them, in nats."""
    reached = np.zeros(1)
    total = 0.0
    for own, table in zip(shares, policy, strict=True):
        positive = np.where(own > 0, own, 1.0)
        total += float(np.exp(reached) @ -(own * np.log(positive)).sum(axis=1))
        reached = (reached[:, None] + table).reshape(-1)
    return total / len(shares)
