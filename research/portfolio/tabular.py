"""Tabular problems: a few prompts, a few answers each, everything known exactly.

With a table of rewards and a reference distribution, the best policy for a preference has a closed
form, `pi_w(y|x) = pi_0(y|x) exp(w @ r(x, y) / beta) / Z_w(x)`. Searches, certificates and bounds
are tested on such problems, where the truth can be computed.

Source:
    palm.md C1 to C3, P13 and section 12 (yardstick A).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import log_softmax, logsumexp, softmax

from palate.core.errors import InvalidInputError
from palate.core.types import PayoffTable
from palate.portfolio.payoffs import Measurements, Payoffs
from research.portfolio.exact import exact_payoffs

USERS_PER_BLOCK = 32  # preferences solved at once; keeps the exponentials in a few megabytes

Policy = Float[ndarray, "prompts answers"]


@dataclass(frozen=True, eq=False)
class TabularProblem:
    """Prompts, answers, rewards and the reference.

    Attributes:
        rewards: `[prompts, answers, objectives]`.
        reference_log_probs: `[prompts, answers]`, natural logarithms, normalised per prompt.
        prompt_probabilities: `[prompts]`, on the simplex.
        beta: Price of one nat of KL, positive, in reward units.
    """

    rewards: Float[ndarray, "prompts answers objectives"]
    reference_log_probs: Float[ndarray, "prompts answers"]
    prompt_probabilities: Float[ndarray, " prompts"]
    beta: float

    def __post_init__(self) -> None:
        """Refuse a price of zero, for which the closed form does not hold."""
        if not self.beta > 0.0:
            raise InvalidInputError(f"A tabular problem needs beta > 0, not {self.beta}.")

    @property
    def n_objectives(self) -> int:
        """How many rewards an answer has."""
        return self.rewards.shape[2]

    def optimum(self, preference: Float[ndarray, " objectives"]) -> Policy:
        """The best policy for a preference."""
        logits = self.reference_log_probs + self.rewards @ preference / self.beta
        return softmax(logits, axis=1)

    def best_values(
        self, preferences: Float[ndarray, "users objectives"]
    ) -> Float[ndarray, " users"]:
        """`J*`: what the best policy for each preference is worth to it."""
        best = np.empty(len(preferences))
        for start in range(0, len(preferences), USERS_PER_BLOCK):
            block = preferences[start : start + USERS_PER_BLOCK]
            logits = np.einsum("xyi,ui->uxy", self.rewards, block) / self.beta
            partition = np.asarray(logsumexp(logits + self.reference_log_probs, axis=2))
            best[start : start + len(block)] = self.beta * partition @ self.prompt_probabilities
        return best

    def optimal_values(
        self, preferences: Float[ndarray, "anchors objectives"]
    ) -> Float[ndarray, "anchors objectives"]:
        """What the best policies for these preferences are worth, on every objective."""
        return np.array([self.values(self.optimum(preference)) for preference in preferences])

    def reward_and_kl(self, policy: Policy) -> tuple[Float[ndarray, " objectives"], float]:
        """Mean reward `[objectives]` and mean KL to the reference in nats."""
        reward = np.einsum("x,xy,xyi->i", self.prompt_probabilities, policy, self.rewards)
        return reward, float(self.prompt_probabilities @ self.kl_per_prompt(policy))

    def kl_per_prompt(self, policy: Policy) -> Float[ndarray, " prompts"]:
        """KL to the reference on each prompt, in nats."""
        logs = np.log(np.where(policy > 0.0, policy, 1.0))
        return np.sum(policy * (logs - self.reference_log_probs), axis=1)

    def values(self, policy: Policy) -> Float[ndarray, " objectives"]:
        """`V = R - beta KL`."""
        reward, kl = self.reward_and_kl(policy)
        return reward - self.beta * kl

    def slack(self, policy: Policy, preference: Float[ndarray, " objectives"]) -> float:
        """How far a policy is from optimal for a preference, from its own answers alone.

        `J* - J = E_x { beta log E_y exp(a / beta) - E_y a }` with
        `a = w @ r - beta log(pi / pi_0)`; an optimal policy has constant `a`.

        Source:
            palm.md C9.
        """
        gain = self.rewards @ preference - self.beta * (np.log(policy) - self.reference_log_probs)
        free = self.beta * np.asarray(logsumexp(gain / self.beta, b=policy, axis=1))
        return float(self.prompt_probabilities @ (free - np.sum(policy * gain, axis=1)))


@dataclass
class TabularOracle:
    """The exact oracle of a tabular problem.

    Attributes:
        problem: What is solved.
        made: Policies by name, with the preference each was made for.
        prices: Mean reward and KL of each, once they were asked for.
    """

    problem: TabularProblem
    made: dict[str, tuple[Float[ndarray, " objectives"], Policy]] = field(default_factory=dict)
    prices: dict[str, tuple[Float[ndarray, " objectives"], float]] = field(default_factory=dict)

    @property
    def objectives(self) -> tuple[str, ...]:
        """`o1`, `o2`, ..."""
        return tuple(f"o{i + 1}" for i in range(self.problem.n_objectives))

    def policy(self, preference: Float[ndarray, " objectives"]) -> str:
        """Name of the best policy for this preference."""
        name = "/".join(f"{share:.12g}" for share in preference)
        if name not in self.made:
            self.made[name] = (np.asarray(preference), self.problem.optimum(preference))
        return name

    def payoffs(self, policies: Sequence[str]) -> Payoffs:
        """Exact values."""
        for name in policies:
            if name not in self.prices:
                self.prices[name] = self.problem.reward_and_kl(self.made[name][1])
        priced = [self.prices[name] for name in policies]
        kl = np.array([cost for _, cost in priced])
        values = np.array([reward for reward, _ in priced]) - self.problem.beta * kl[:, None]
        return exact_payoffs(
            PayoffTable(
                objectives=self.objectives,
                policies=tuple(policies),
                values=values,
                standard_errors=np.zeros_like(values),
                beta=self.problem.beta,
                kl=kl,
                preferences=np.array([self.made[name][0] for name in policies]),
            )
        )


def measured(
    oracle: TabularOracle,
    policies: Sequence[str],
    *,
    n_prompts: int,
    generator: np.random.Generator,
) -> Measurements:
    """What an experiment would see: prompts drawn at random, one answer of every policy to each.

    The KL of a prompt is summed over the vocabulary, hence exact (palm.md section 8).
    """
    problem = oracle.problem
    prompts = generator.choice(
        len(problem.prompt_probabilities), size=n_prompts, p=problem.prompt_probabilities
    )
    draws = generator.random(n_prompts)
    rewards, kl = [], []
    for name in policies:
        policy = oracle.made[name][1]
        cumulative = np.cumsum(policy, axis=1)[prompts]
        answers = np.minimum((cumulative < draws[:, None]).sum(axis=1), policy.shape[1] - 1)
        rewards.append(problem.rewards[prompts, answers])
        kl.append(problem.kl_per_prompt(policy)[prompts])
    return Measurements(
        objectives=oracle.objectives,
        policies=tuple(policies),
        rewards=np.array(rewards),
        kl=np.array(kl),
        beta=problem.beta,
        preferences=np.array([oracle.made[name][0] for name in policies]),
    )


def yardstick(*, seed: int, n_objectives: int, beta: float) -> TabularProblem:
    """The yardstick problem: 30 prompts, 400 answers each, rewards inside the unit sphere.

    Source:
        palm.md section 12, yardstick A.
    """
    rng = np.random.default_rng(seed)
    directions = np.abs(rng.normal(size=(30, 400, n_objectives)))
    directions /= np.linalg.norm(directions, axis=2, keepdims=True)
    rewards = directions * rng.beta(4, 2, size=(30, 400, 1))
    logits = rng.normal(size=(30, 400)) - 3.0 * rewards.mean(axis=2)
    return TabularProblem(
        rewards=rewards,
        reference_log_probs=log_softmax(logits, axis=1),
        prompt_probabilities=np.full(30, 1.0 / 30.0),
        beta=beta,
    )
