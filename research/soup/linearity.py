"""How much of a policy's tilts is linear in a representation of the base, on states held out.

At a state s with features f(s) a class of policies is linear where the tilt of a token is

    tilt(s, a) - E_base tilt(s, .) = <Theta, (e_a - p_s) f(s)^T>,          Theta [vocab, features],

`e_a` the token's unit vector and `p_s` the base's distribution. With f = psi, the last hidden
state after the final norm, these are the policies that differ from the base in the unembedding
alone. Theta is a ridge regression in its dual form, so that only inner products of states are
needed. Shares are of variance under the base, `1 - sum p (tilt - predicted)^2 / sum p tilt^2`.

Source: Spectral Souping, arXiv 2605.20408, its claim that log-ratios share one representation; the
form in psi and the test are ours (methods beyond.md, section 2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array

from palate.core.errors import InvalidInputError

RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # for a kernel of mean diagonal 1
N_FOLDS = 5
N_DRAWS = 2000  # of the bootstrap over prompts
N_RANDOM = 20  # random sets of directions that are averaged


@dataclass(frozen=True, eq=False)
class TokenStates:
    """States along answers, with every expert's tilts of the base's most likely tokens there."""

    # features of the states by name, `[states, width]`
    features: dict[str, Float[ndarray, "states width"]]
    tokens: Int[ndarray, "states tokens"]  # ids; the last is the token that the answer took
    shares: Float[ndarray, "states likely"]  # of all but the last under the base; sum 1
    # centred under the shares, nats
    tilts: Float[ndarray, "states tokens experts"]
    prompts: Int[ndarray, " states"]
    answers: Int[ndarray, " states"]

    def part(self, rows: ndarray) -> "TokenStates":
        """Only these states."""
        return TokenStates(
            {name: values[rows] for name, values in self.features.items()},
            self.tokens[rows],
            self.shares[rows],
            self.tilts[rows],
            self.prompts[rows],
            self.answers[rows],
        )

    @property
    def matrix(self) -> Float[ndarray, "pairs experts"]:
        """The tilt matrix: a row for each state and likely token, times the root of its share."""
        tilts = self.tilts[:, :-1] * np.sqrt(self.shares)[..., None]
        return tilts.reshape(-1, self.tilts.shape[2])


@dataclass(frozen=True)
class Share:
    """A share of variance explained, with a 95 % interval of a bootstrap over prompts."""

    estimate: float
    low: float
    high: float


def explained(
    states: TokenStates,
    predicted: Float[ndarray, "states tokens"],
    *,
    expert: int,
    seed: int,
    is_answers: bool = False,
) -> Share:
    """Share of one expert's variance that predicted centred tilts explain.

    Of likely tokens under the base, or of whole answers: sums of the tokens that they took.

    Raises:
        InvalidInputError: the expert does nothing on these states.
    """
    true = states.tilts[:, :, expert]
    if is_answers:
        wrong, whole = (_sums(x[:, -1], states.answers) ** 2 for x in (true - predicted, true))
        prompts = states.prompts[np.unique(states.answers, return_index=True)[1]]
    else:
        errors = (true - predicted)[:, :-1]
        wrong, whole = ((states.shares * x**2).sum(axis=1) for x in (errors, true[:, :-1]))
        prompts = states.prompts
    of_prompt = np.unique(prompts, return_inverse=True)[1]
    wrong, whole = (np.bincount(of_prompt, weights=x) for x in (wrong, whole))
    if not whole.sum() > 0:
        raise InvalidInputError(
            f"The expert at place {expert} does not differ from the base on the states given."
        )
    drawn = np.random.default_rng(seed).integers(len(whole), size=(N_DRAWS, len(whole)))
    shares = 1.0 - wrong[drawn].sum(axis=1) / np.maximum(whole[drawn].sum(axis=1), 1e-300)
    low, high = np.quantile(shares, [0.025, 0.975])
    return Share(1.0 - float(wrong.sum() / whole.sum()), float(low), float(high))


def by_features(
    train: TokenStates, test: TokenStates, name: str, *, seed: int
) -> tuple[Float[ndarray, "states tokens experts"], float]:
    """Centred tilts that a ridge on `(e_a - p) f^T` predicts, and the ridge.

    It is fitted to one token a state, drawn from the base; the ridge is the one that predicts
    training prompts best from other ones, over all experts.
    """
    generator = np.random.default_rng(seed)
    chances = train.shares.cumsum(axis=1)
    drawn = (generator.random((len(chances), 1)) > chances).sum(axis=1)
    drawn = np.minimum(drawn, train.shares.shape[1] - 1)
    rows = np.arange(len(drawn))
    targets = train.tilts[rows, drawn]  # [states, experts]
    n_tokens = int(max(train.tokens.max(), test.tokens.max())) + 1
    contrasts = _contrasts(train, train.tokens[rows, drawn], n_tokens=n_tokens)
    f = train.features[name]
    kernel = np.asarray((contrasts @ contrasts.T).todense()) * (f @ f.T)
    unit = float(np.trace(kernel)) / len(kernel)
    kernel /= unit
    sizes = np.maximum(targets.std(axis=0), 1e-12)
    ridge = _best_ridge(kernel, targets / sizes, train.prompts)
    alpha = _solve(kernel, targets, ridge) / unit
    predicted = np.empty(test.tilts.shape)
    for expert in range(targets.shape[1]):
        theta = contrasts.T @ (alpha[:, expert, None] * f)  # [vocab, width]
        raw = np.einsum("stw,sw->st", theta[test.tokens], test.features[name])
        mean = (test.shares * raw[:, :-1]).sum(axis=1, keepdims=True)
        predicted[:, :, expert] = raw - mean
    return predicted, ridge


def by_basis(
    train: TokenStates, test: TokenStates, *, expert: int, rank: int
) -> Float[ndarray, "states tokens"]:
    """Centred tilts of one expert from the first singular directions of the others' tilts."""
    others = [k for k in range(train.tilts.shape[2]) if k != expert]
    matrix = train.matrix
    _, _, directions = np.linalg.svd(matrix[:, others], full_matrices=False)
    turn = directions[:rank].T  # [others, rank]
    fitted = np.linalg.lstsq(matrix[:, others] @ turn, matrix[:, expert], rcond=None)[0]
    return test.tilts[:, :, others] @ (turn @ fitted)


def by_random_directions(
    train: TokenStates, test: TokenStates, *, name: str, expert: int, n: int, seed: int
) -> list[Float[ndarray, "states tokens"]]:
    """The same from so many random changes of the unembedding of rank one, `N_RANDOM` times."""
    generator = np.random.default_rng(seed)
    n_tokens = int(max(train.tokens.max(), test.tokens.max())) + 1
    predictions: list[ndarray] = []
    for _ in range(N_RANDOM):
        up = generator.normal(size=(n_tokens, n))
        down = generator.normal(size=(n, train.features[name].shape[1]))
        pair = [_random_tilts(part, up, part.features[name] @ down.T) for part in (train, test)]
        weighted = pair[0][:, :-1] * np.sqrt(train.shares)[..., None]
        fitted = np.linalg.lstsq(weighted.reshape(-1, n), train.matrix[:, expert], rcond=None)[0]
        predictions.append(pair[1] @ fitted)
    return predictions


def ranks_by_number(
    states: TokenStates, *, shares: Sequence[float]
) -> list[tuple[int, dict[float, float]]]:
    """By number of experts, the mean effective rank over all sets of so many.

    The effective rank is how many singular values of the tilt matrix carry a share of its energy.
    """
    gram = states.matrix.T @ states.matrix
    n_experts = len(gram)
    table: list[tuple[int, dict[float, float]]] = []
    for n in range(1, n_experts + 1):
        energies = [
            np.sort(np.linalg.eigvalsh(gram[np.ix_(chosen, chosen)]))[::-1]
            for chosen in combinations(range(n_experts), n)
        ]
        parts = [np.cumsum(e) / e.sum() for e in energies]
        means = {
            share: float(np.mean([int((part < share - 1e-12).sum()) + 1 for part in parts]))
            for share in shares
        }
        table.append((n, means))
    return table


def energy_by_rank(states: TokenStates) -> list[float]:
    """Share of all experts' energy that the first 1, 2, ... singular directions carry."""
    energies = np.linalg.eigvalsh(states.matrix.T @ states.matrix)[::-1]
    return (np.cumsum(energies) / energies.sum()).tolist()


def _random_tilts(
    states: TokenStates, up: Float[ndarray, "vocab n"], strength: Float[ndarray, "states n"]
) -> Float[ndarray, "states tokens n"]:
    raw = up[states.tokens] * strength[:, None, :]
    return raw - np.einsum("sl,sln->sn", states.shares, raw[:, :-1])[:, None, :]


def _contrasts(states: TokenStates, taken: Int[ndarray, " states"], *, n_tokens: int) -> csr_array:
    """`[states, vocab]`: the unit vector of a token less the base's distribution."""
    n, n_likely = states.shares.shape
    rows = np.concatenate([np.arange(n), np.repeat(np.arange(n), n_likely)])
    columns = np.concatenate([taken, states.tokens[:, :-1].ravel()])
    values = np.concatenate([np.ones(n), -states.shares.ravel()])
    return csr_array((values, (rows, columns)), shape=(n, n_tokens))


def _best_ridge(
    kernel: Float[ndarray, "rows rows"],
    targets: Float[ndarray, "rows experts"],
    prompts: Int[ndarray, " rows"],
) -> float:
    fold_of = np.unique(prompts, return_inverse=True)[1] % N_FOLDS
    errors = np.zeros(len(RIDGES))
    for fold in range(N_FOLDS):
        used, out = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        for place, ridge in enumerate(RIDGES):
            alpha = _solve(kernel[np.ix_(used, used)], targets[used], ridge)
            errors[place] += np.square(kernel[np.ix_(out, used)] @ alpha - targets[out]).sum()
    return RIDGES[int(errors.argmin())]


def _solve(
    kernel: Float[ndarray, "rows rows"], targets: Float[ndarray, "rows experts"], ridge: float
) -> Float[ndarray, "rows experts"]:
    return np.asarray(cho_solve(cho_factor(kernel + ridge * np.eye(len(kernel))), targets))


def _sums(
    values: Float[ndarray, " states"], labels: Int[ndarray, " states"]
) -> Float[ndarray, " answers"]:
    return np.bincount(np.unique(labels, return_inverse=True)[1], weights=values)
