"""An expert in closed form: one ridge regression of rewards on psi, without a gradient step.

For the unembedding W, hidden states h_t after the final norm and next-token distributions p_t,

    psi(y, q) = d log pi_0(y|q) / dW = sum_t (e_{y_t} - p_t) h_t^T              [vocab, hidden]

so a change dW of the unembedding tilts log pi(y|q) by <dW, psi> to first order. The policy for a
reward r at the price beta has the tilt r / beta - c(q). With rewards and psi centred per prompt,

    alpha = (Psi Psi^T + rho I)^-1 r / beta,        dW = sum_i alpha_i psi_i                (closed)

The ridge rho is chosen by leaving out whole prompts, one for all objectives of a library: then dW
is linear in the rewards, and a soup of these experts is the expert of the blended reward.

Source:
    Spectral Souping, arXiv 2605.20408, section 4 (log-ratios are linear in one representation);
    methods beyond.md, section 2, for psi and the closed form.

Deviations:
    1. Inner products use psi with `e - p` projected to `N_SKETCH` seeded random signs where the
       vocabulary is larger; they are unbiased. dW itself is not projected.
    2. p_t is its `N_LIKELY` most likely tokens, scaled to sum to one, in half precision.
    3. dW is cut to the adapter's rank by its singular values; the share of its energy that is left
       is `SpectralExpert.energy`.
    4. Answers sampled under an instruction count as the base's own; the reward's tilt is the same.
"""

import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array
from torch import Tensor

from palate.core.errors import InvalidInputError
from palate.core.files import write_bytes_atomic
from palate.core.progress import progress_of
from palate.core.seeds import generator_for
from palate.models.adapter import Factor
from palate.models.load import Base
from palate.training.pairs import Sequences, data_key, padded
from palate.training.placement import unembedding

N_SKETCH = 256
N_LIKELY = 64
N_FOLDS = 5
RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # for a kernel of mean diagonal 1
_BATCH = 16  # answers in one pass


@dataclass(frozen=True, eq=False)
class HeadStates:
    """What the base computed at every token of some answers."""

    hidden: Float[Tensor, "tokens hidden"]  # after the final norm, before the token; float16
    tokens: Int[Tensor, " tokens"]  # ids of the answers
    likely: Int[Tensor, "tokens likely"]  # ids of the `N_LIKELY` most likely tokens
    probabilities: Float[Tensor, "tokens likely"]  # theirs, with sum 1
    owners: Int[Tensor, " tokens"]  # index of the answer


@dataclass(frozen=True, eq=False)
class SpectralExpert:
    """A closed-form expert."""

    factor: Factor  # the low-rank change of the unembedding
    energy: float  # share of the squared length of dW that the rank kept
    ridge: float  # the chosen rho, for a kernel of mean diagonal 1
    correlation: float  # within prompts, of tilt and reward on prompts left out


def head_states(base: Base, sequences: Sequences, *, folder: Path | None = None) -> HeadStates:
    """What the base computes at the answers' tokens, in one pass with a progress line.

    They are stored in the folder, or read if they are there; `None` stores nothing.
    """
    path = None if folder is None else folder / f"hidden-{data_key(base, sequences)}.safetensors"
    if path is not None and path.is_file():
        return HeadStates(**load_file(path))
    order = np.argsort(sequences.lengths(), kind="stable")
    parts: list[HeadStates] = []
    with progress_of("hidden states, answers") as report, torch.inference_mode():
        for start in range(0, len(order), _BATCH):
            parts.append(_states_of(base, sequences, order[start : start + _BATCH]))
            report(min(start + _BATCH, len(order)), len(order))
    states = _stacked(parts)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(path, save(dict(vars(states))))
    return states


def joined(parts: Sequence[HeadStates], *, sizes: Sequence[int]) -> HeadStates:
    """The states of several lists of answers, of these sizes, as of one list."""
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    moved = [
        replace(part, owners=part.owners + start) for part, start in zip(parts, starts, strict=True)
    ]
    return _stacked(moved)


def _stacked(parts: Sequence[HeadStates]) -> HeadStates:
    columns = [
        torch.cat([getattr(part, one.name) for part in parts]).contiguous()
        for one in fields(HeadStates)
    ]
    return HeadStates(*columns)


def _states_of(base: Base, sequences: Sequences, rows: Int[np.ndarray, " rows"]) -> HeadStates:
    ids, mask, is_answer = padded(sequences, rows)
    hidden = base.model.base_model(
        input_ids=ids.to(base.device), attention_mask=mask.to(base.device), use_cache=False
    ).last_hidden_state[:, :-1]
    chosen = is_answer[:, 1:].bool()
    states = hidden[chosen.to(base.device)]
    logits = unembedding(base.model)(states).float()
    values, likely = logits.topk(min(N_LIKELY, logits.shape[1]), dim=1)
    return HeadStates(
        states.to("cpu", torch.float16),
        ids[:, 1:][chosen],
        likely.to("cpu", torch.int32),
        values.softmax(dim=1).to("cpu", torch.float16),
        torch.as_tensor(rows)[torch.nonzero(chosen)[:, 0]],
    )


class SpectralSolver:
    """Solves for the experts of any rewards of the same answers."""

    def __init__(
        self,
        states: HeadStates,
        prompts: Sequence[str],
        rewards: Float[np.ndarray, "answers objectives"],
        *,
        n_vocabulary: int,
        seed: int,
    ) -> None:
        """Make the kernel and choose the ridge.

        Answers to one prompt belong together; the ridge is chosen over these rewards. The seed is
        that of sketch and folds.

        Raises:
            InvalidInputError: there are fewer than `N_FOLDS` prompts with two answers.
        """
        names = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
        self._groups = np.array([names[prompt] for prompt in prompts])
        if len(names) < N_FOLDS or len(prompts) < 2 * len(names):
            raise InvalidInputError(
                f"The method spectral needs {N_FOLDS} prompts with two answers each, but there are "
                f"{len(prompts)} answers to {len(names)} prompts."
            )
        self._states, self._n_vocabulary = states, n_vocabulary
        kernel = _kernel(states, self._groups, seed=seed)
        self._unit = float(np.trace(kernel)) / len(kernel)
        self._kernel = kernel / self._unit
        self._folds = generator_for(seed, "spectral folds").permutation(len(names)) % N_FOLDS
        targets = centred(rewards, self._groups)
        targets = targets / np.maximum(targets.std(axis=0), 1e-9)
        errors = [np.square(self._left_out(targets, ridge) - targets).mean() for ridge in RIDGES]
        self.ridge = RIDGES[int(np.argmin(errors))]

    def solve(
        self, reward: Float[np.ndarray, " answers"], *, beta: float, rank: int
    ) -> SpectralExpert:
        """The expert of a reward `[answers]` at the price `beta`, cut to a rank."""
        target = centred(reward / beta, self._groups)
        alpha = centred(_ridge(self._kernel, target, self.ridge), self._groups)
        coefficients = alpha / self._unit
        change = _change(self._states, coefficients, n_vocabulary=self._n_vocabulary)
        down, up, energy = _cut(change, rank=rank)
        left_out = self._left_out(target[:, None], self.ridge)[:, 0]
        correlation = float(np.corrcoef(left_out, target)[0, 1]) if target.any() else 0.0
        return SpectralExpert(Factor(down, up, 1.0), energy, self.ridge, correlation)

    def _left_out(
        self, targets: Float[np.ndarray, "answers objectives"], ridge: float
    ) -> Float[np.ndarray, "answers objectives"]:
        """Tilts that are predicted for each prompt from the other folds' prompts."""
        predicted = np.zeros_like(targets)
        fold_of = self._folds[self._groups]
        for fold in range(N_FOLDS):
            test, train = np.flatnonzero(fold_of == fold), np.flatnonzero(fold_of != fold)
            alpha = _ridge(self._kernel[np.ix_(train, train)], targets[train], ridge)
            predicted[test] = self._kernel[np.ix_(test, train)] @ alpha
        return predicted


def centred(
    values: Float[np.ndarray, "answers *columns"], groups: Int[np.ndarray, " answers"]
) -> Float[np.ndarray, "answers *columns"]:
    """`[answers, ...]` less the mean over the answers of the same group."""
    counts = np.bincount(groups)
    indicator = csr_array((np.ones(len(groups)), (groups, np.arange(len(groups)))))
    sums = indicator @ values
    means = sums / counts.reshape(-1, *[1] * (values.ndim - 1))
    return values - means[groups]


def _ridge(
    kernel: Float[np.ndarray, "rows rows"],
    targets: Float[np.ndarray, "rows *columns"],
    ridge: float,
) -> Float[np.ndarray, "rows *columns"]:
    factor = cho_factor(kernel + ridge * np.eye(len(kernel)), overwrite_a=True)
    return np.asarray(cho_solve(factor, targets))


def _kernel(
    states: HeadStates, groups: Int[np.ndarray, " answers"], *, seed: int
) -> Float[np.ndarray, "answers answers"]:
    """`[answers, answers]`: inner products of psi, centred per group."""
    signs = _signs(int(max(states.likely.max(), states.tokens.max())) + 1, seed=seed)
    n_answers, width = len(groups), states.hidden.shape[1]
    psi = torch.zeros(n_answers, signs.shape[1], width)
    order = torch.argsort(states.owners, stable=True)
    bounds = torch.searchsorted(states.owners[order], torch.arange(n_answers + 1))
    for answer in range(n_answers):
        rows = order[bounds[answer] : bounds[answer + 1]]
        likely, weights = signs[states.likely[rows].long()], states.probabilities[rows].float()
        left = signs[states.tokens[rows]] - torch.einsum("tk,tkm->tm", weights, likely)
        psi[answer] = left.T @ states.hidden[rows].float()
    flat = psi.view(n_answers, -1)
    gram = (flat @ flat.T).double().numpy()
    return centred(centred(gram, groups).T, groups)


def _signs(vocabulary: int, *, seed: int) -> Float[Tensor, "vocab sketch"]:
    """Random signs by token, with expected products of the identity; itself where that is small."""
    if vocabulary <= N_SKETCH:
        return torch.eye(vocabulary)
    bits = generator_for(seed, "spectral sketch").integers(0, 2, (vocabulary, N_SKETCH))
    return torch.as_tensor((2.0 * bits - 1.0) / np.sqrt(N_SKETCH), dtype=torch.float32)


def _change(
    states: HeadStates, coefficients: Float[np.ndarray, " answers"], *, n_vocabulary: int
) -> Float[Tensor, "vocab hidden"]:
    """`[vocab, hidden]`: the sum of psi of all answers with these coefficients."""
    of_token = torch.as_tensor(coefficients)[states.owners]
    n_tokens, n_likely = states.likely.shape
    rows = torch.cat([states.tokens, states.likely.reshape(-1).long()])
    places = torch.arange(n_tokens)
    columns = torch.cat([places, places.repeat_interleave(n_likely)])
    values = torch.cat([of_token, -(of_token[:, None] * states.probabilities).reshape(-1)])
    shape = (n_vocabulary, n_tokens)
    matrix = csr_array((values.numpy(), (rows.numpy(), columns.numpy())), shape=shape)
    return torch.as_tensor(matrix @ states.hidden.double().numpy())


def _cut(
    change: Float[Tensor, "vocab hidden"], *, rank: int
) -> tuple[Float[Tensor, "rank hidden"], Float[Tensor, "vocab rank"], float]:
    """The best approximation of this rank as two factors, and the share of energy it keeps."""
    energies, vectors = torch.linalg.eigh(change.T @ change)
    down = vectors[:, -rank:].flip(1).T
    share = float(energies[-rank:].sum() / energies.sum().clamp_min(1e-30))
    return down.float().contiguous(), (change @ down.T).float().contiguous(), share


def spectral_adapter(base: Base, expert: SpectralExpert, config: LoraConfig) -> PeftModel:
    """The base with the expert's factors as an adapter of this configuration."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' notes on tied and deprecated settings
        model = get_peft_model(deepcopy(base.model), config)
    scale = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            parameter.data.copy_(expert.factor.down)
        elif "lora_B" in name:
            parameter.data.copy_(expert.factor.up / scale)
    return model.eval()
