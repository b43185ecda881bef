"""Yardstick C: five token trees on which the best controller is known, and REBEL with a table.

Each tree has 5^5 answers; three experts are exactly optimal at the same KL price for one reward
each, and the mixture is to serve the mean of the three. A table of scores, one per state and
expert, takes the place of the controller: what REBEL reaches here is due to the method alone.

Source:
    methods mope 13 (yardstick C), on the trees of yardstick B (spectral_souping 11).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import expit
from torch import Tensor

from palate.core.seeds import derive_seed, generator_for
from palate.mixture.losses import rebel_loss
from palate.mixture.pooling import shares_of, token_log_probs
from research.mixture.tabular import ControlProblem, Shares
from research.soup.token_trees import yardstick as token_tree
from research.soup.trees import Policy, optimal_policy, sample_answers

BETA = 0.08  # KL price of the experts
STEEPNESS = 1.5  # of the rewards sigmoid(1.5 attribute)
N_REWARDS = 3


@dataclass(frozen=True, eq=False)
class Yardstick:
    """One tree with its experts.

    Attributes:
        reference: The policy that KL is measured to.
        experts: One per reward, optimal for it.
        rewards: `[answers, rewards]`, in (0, 1).
        problem: Mixing the experts for the mean reward.
    """

    reference: Policy
    experts: tuple[Policy, ...]
    rewards: Float[ndarray, "answers rewards"]
    problem: ControlProblem


@dataclass(frozen=True)
class RebelSettings:
    """How the table learns; the defaults are the yardstick's.

    Attributes:
        eta: Nats of log-ratio per unit of reward.
        n_pairs: Pairs of answers sampled per update.
        n_epochs: Optimizer steps on them.
        learning_rate: Of Adam.
        n_updates: In all.
    """

    eta: float = 5.0
    n_pairs: int = 256
    n_epochs: int = 4
    learning_rate: float = 0.1
    n_updates: int = 300


def yardstick(seed: int) -> Yardstick:
    """The tree of this seed, with its experts and their mean reward."""
    tree = token_tree(seed, n_training=1)
    rewards = expit(STEEPNESS * tree.attributes[:, :N_REWARDS])
    experts = tuple(
        optimal_policy(tree.reference, rewards[:, i], beta=BETA) for i in range(N_REWARDS)
    )
    problem = ControlProblem.of(experts, rewards.mean(axis=1))
    return Yardstick(tree.reference, experts, rewards, problem)


def two_halves(*, n_tokens: int = 4, likely: float = 0.8) -> ControlProblem:
    """A case in which no constant shares are better than others, and a controller is.

    Answers are `n_tokens` long, of the tokens a, b, c. One expert writes a, the other b, each with
    probability `likely` at every place, the rest split evenly. A token is right if it is a in the
    first half or b in the second; the reward is the share of right tokens. Constant shares win in
    one half what they lose in the other: their value is the mean of `likely` and `(1 - likely) / 2`
    whatever they are. The controller that changes hands in the middle has the value `likely`.

    Args:
        n_tokens: Even.
        likely: Of each expert's own token.
    """
    rest = (1.0 - likely) / 2.0
    laws = np.log([[likely, rest, rest], [rest, likely, rest]])
    experts = [tuple(np.tile(law, (3**depth, 1)) for depth in range(n_tokens)) for law in laws]
    answers = np.stack(np.unravel_index(np.arange(3**n_tokens), (3,) * n_tokens), axis=1)
    wanted = np.repeat([0, 1], n_tokens // 2)
    return ControlProblem.of(experts, (answers == wanted).mean(axis=1))


def fit_table(
    problem: ControlProblem,
    *,
    seed: int,
    settings: RebelSettings | None = None,
    on_update: Callable[[int, Shares], None] = lambda _update, _shares: None,
) -> Shares:
    """The shares that REBEL reaches from the uniform mixture, with a score per state and expert.

    Args:
        problem: Experts and rewards.
        seed: Of the sampled answers.
        settings: Sizes and rates.
        on_update: Called after each update with its number, from one, and the shares.
    """
    options = settings or RebelSettings()
    generator = generator_for(derive_seed(seed, "table"), "answers")
    tables = [torch.zeros(p.shape[1], p.shape[0], dtype=torch.float64) for p in problem.probs]
    scores = torch.cat(tables).requires_grad_()
    optimizer = torch.optim.Adam([scores], lr=options.learning_rate, betas=(0.9, 0.95))
    shares = _shares(problem, scores)
    for update in range(1, options.n_updates + 1):
        policy = problem.policy(shares)
        answers = sample_answers(policy, n_answers=2 * options.n_pairs, generator=generator)
        states, token_probs = _visited(problem, answers)
        rewards = torch.tensor(problem.rewards[answers]).view(-1, 2)
        active = torch.ones_like(token_probs, dtype=torch.bool)
        before = token_log_probs(scores.detach()[states], token_probs.log(), active).sum(dim=1)
        for _ in range(options.n_epochs):
            now = token_log_probs(scores[states], token_probs.log(), active).sum(dim=1)
            loss = rebel_loss((now - before).view(-1, 2), rewards, eta=options.eta)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        shares = _shares(problem, scores)
        on_update(update, shares)
    return shares


def _visited(problem: ControlProblem, answers: Int[ndarray, " answers"]) -> tuple[Tensor, Tensor]:
    """Rows of the stacked tables that each answer passes, and the experts' probabilities there.

    Returns:
        `[answers, length]` and `[answers, length, experts]`.
    """
    places: list[Int[ndarray, " answers"]] = []
    probs: list[Float[ndarray, "answers experts"]] = []
    offset = 0
    for depth, table in enumerate(problem.probs):
        vocab = table.shape[2]
        below = vocab ** (len(problem.probs) - depth - 1)
        state, token = answers // (below * vocab), answers // below % vocab
        places.append(offset + state)
        probs.append(table[:, state, token].T)
        offset += table.shape[1]
    return torch.tensor(np.stack(places, axis=1)), torch.tensor(np.stack(probs, axis=1))


def _shares(problem: ControlProblem, scores: Tensor) -> Shares:
    every = shares_of(scores.detach(), torch.ones_like(scores, dtype=torch.bool)).numpy()
    ends = np.cumsum([table.shape[1] for table in problem.probs])
    return tuple(np.split(every, ends[:-1]))
