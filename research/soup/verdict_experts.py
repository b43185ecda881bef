"""Coefficients learned from verdicts, or an expert in closed form from the same verdicts?

    python -m research.soup.verdict_experts LIBRARY --out reports/verdict-experts

LIBRARY has rollouts with rewards, as `palate build` leaves them. Everything is linear in psi, the
derivative of an answer's log-probability by the unembedding, so a policy is the tilt that it
predicts for an answer, and its worth the correlation of that tilt with the user's true reward
within prompts that nothing was fitted to. Prompts are divided in three: on the first the library's
objectives get an expert in closed form each; on the second users, mixtures of the objectives, say
which of two answers they prefer; the third judges.

    coefficients   Bradley-Terry on the experts' tilts: the soup that is learned
    psi            Bradley-Terry on psi itself: an expert of the user's own, solved from verdicts
    both           the two kernels added: a soup, and what it lacks
    stated         the soup of the true mixture, which is the closed-form expert of the true reward

How far the prior reaches is chosen for each user by the likelihood of verdicts that are left out.

Source: methods beyond.md, section 2; the kernel form of Bradley-Terry is ridge logistic regression.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import expit

from palate import Library
from palate.core.errors import InvalidInputError
from palate.core.files import write_json, write_text_atomic
from palate.core.seeds import generator_for
from palate.metrics.intervals import bootstrap_interval
from palate.training.pairs import encode_rollouts
from palate.training.rollouts import read_rollouts
from palate.training.spectral import HeadStates, centred, head_states
from research.command_line import IsJson, Seed, print_result, run

N_SKETCH = (128, 64)  # signs by token and by hidden coordinate
RIDGE = 10.0  # of the experts, for a kernel of mean diagonal 1; as the prototype's
REACHES = (0.03, 0.3, 3.0, 30.0)  # of the prior, for a kernel of mean diagonal 1
N_VERDICTS = (10, 30, 100, 300)
N_USERS = 40
GAIN = 3.0  # margins, in standard deviations of the user's reward
N_FOLDS = 5
WAYS = ("coefficients", "psi", "both", "stated")


def main(
    library: Annotated[str, typer.Argument(help="A folder, hub id or shipped library.")] = (
        "smollm2-135m"
    ),
    *,
    n_prompts: Annotated[int, typer.Option(help="In each of the three parts.")] = 24,
    n_answers: Annotated[int, typer.Option(help="To a prompt, at most.")] = 4,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Report's path without ending.")] = None,
    is_json: IsJson = False,
) -> None:
    """Print how well each way's tilts follow users' rewards; with `--out`, write them."""
    opened = Library.load(library)
    answers = read_answers(opened, n_prompts=3 * n_prompts, n_answers=n_answers, seed=seed)
    facts = {
        "library": opened.files.folder.name,
        "n_prompts": n_prompts,
        "n_answers": len(answers.prompts),
        "seed": seed,
        **compared(answers, seed=seed),
    }
    if out is not None:
        write_json(out.with_suffix(".json"), facts)
        write_text_atomic(out.with_suffix(".md"), as_markdown(facts))
    print_result(facts, is_json=is_json)


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers with psi and rewards, both centred within prompts."""

    psi: Float[ndarray, "answers features"]
    rewards: Float[ndarray, "answers objectives"]
    prompts: Int[ndarray, " answers"]  # from zero


def read_answers(library: Library, *, n_prompts: int, n_answers: int, seed: int) -> Answers:
    """Rollouts of so many prompts, in a seeded order, with psi.

    Raises:
        InvalidInputError: the library's rollouts have fewer prompts with two answers.
    """
    rows = read_rollouts(library.files.rollouts_path, objectives=library.manifest.objective_names)
    of_prompt: dict[str, list[Any]] = {}
    for row in rows:
        of_prompt.setdefault(row.prompt, []).append(row)
    usable = [own[:n_answers] for own in of_prompt.values() if len(own) > 1]
    if len(usable) < n_prompts:
        raise InvalidInputError(
            f"The library's rollouts have {len(usable)} prompts with two answers, but {n_prompts} "
            "are wanted; lower --n-prompts."
        )
    order = generator_for(seed, "verdict experts").permutation(len(usable))[:n_prompts]
    chosen = [row for k in order for row in usable[k]]
    prompts = np.repeat(np.arange(n_prompts), [len(usable[k]) for k in order])
    states = head_states(library.base, encode_rollouts(library.base, chosen))
    psi = sketched_psi(states, n_answers=len(chosen), seed=seed)
    rewards = np.array([row.rewards for row in chosen])
    return Answers(centred(psi, prompts), centred(rewards, prompts), prompts)


def sketched_psi(
    states: HeadStates, *, n_answers: int, seed: int
) -> Float[ndarray, "answers features"]:
    """`sum_t (e_{y_t} - p_t) h_t^T` of each answer, both sides projected to random signs.

    Inner products are unbiased; a side no longer than its sketch is kept as it is.
    """
    n_tokens = int(max(states.likely.max(), states.tokens.max())) + 1
    generator = generator_for(seed, "psi")
    left, right = (
        torch.eye(size)
        if size <= n
        else torch.as_tensor(generator.choice([-1.0, 1.0], size=(size, n)) / n**0.5).float()
        for size, n in zip((n_tokens, states.hidden.shape[1]), N_SKETCH, strict=True)
    )
    hidden = states.hidden.float() @ right
    psi = torch.zeros(n_answers, left.shape[1], right.shape[1])
    for answer in range(n_answers):
        rows = torch.nonzero(states.owners == answer)[:, 0]
        likely, weights = left[states.likely[rows].long()], states.probabilities[rows].float()
        contrast = left[states.tokens[rows]] - torch.einsum("tk,tkm->tm", weights, likely)
        psi[answer] = contrast.T @ hidden[rows]
    return psi.reshape(n_answers, -1).double().numpy()


def compared(answers: Answers, *, seed: int) -> dict[str, Any]:
    """Mean correlation over users by way and number of verdicts, with intervals over users."""
    parts = [answers.prompts % 3 == k for k in range(3)]
    kernel = _unit(answers.psi @ answers.psi.T)
    tilts = expert_tilts(kernel, answers.rewards, fitted=parts[0])
    soups = _unit(tilts @ tilts.T)
    kernels = {"coefficients": soups, "psi": kernel, "both": (soups + kernel) / 2}
    found: dict[str, dict[int, list[float]]] = {way: {} for way in WAYS}
    for user in range(N_USERS):
        generator = generator_for(seed, "user", str(user))
        wanted = generator.dirichlet(np.ones(answers.rewards.shape[1]))
        reward = answers.rewards @ wanted
        pairs = draw_pairs(answers.prompts, parts[1], n=max(N_VERDICTS), generator=generator)
        size = max(float(reward[parts[1]].std()), 1e-12)
        chance = expit(GAIN * (reward[pairs[:, 0]] - reward[pairs[:, 1]]) / size)
        labels = (generator.random(len(pairs)) < chance).astype(float)
        for n in N_VERDICTS:
            tilt = {"stated": tilts @ wanted}
            for way, own in kernels.items():
                tilt[way] = learned_tilt(own, pairs[:n], labels[:n])
            for way in WAYS:
                worth = correlation(tilt[way][parts[2]], reward[parts[2]])
                found[way].setdefault(n, []).append(worth)
    return {
        "n_users": N_USERS,
        "correlation": {
            way: {str(n): _summary(values) for n, values in by_n.items()}
            for way, by_n in found.items()
        },
        "psi minus coefficients": {
            str(n): _summary(np.subtract(found["psi"][n], found["coefficients"][n]).tolist())
            for n in N_VERDICTS
        },
    }


def _unit(kernel: Float[ndarray, "rows rows"]) -> Float[ndarray, "rows rows"]:
    """The kernel with mean diagonal 1; as it is where it is zero."""
    size = float(np.trace(kernel)) / len(kernel)
    return kernel / size if size > 0 else kernel


def expert_tilts(
    kernel: Float[ndarray, "answers answers"],
    rewards: Float[ndarray, "answers objectives"],
    *,
    fitted: ndarray,
) -> Float[ndarray, "answers objectives"]:
    """Tilts of all answers by closed-form experts that the fitted ones gave, at the price 1."""
    own = kernel[np.ix_(fitted, fitted)]
    alpha = np.linalg.solve(own + RIDGE * np.eye(len(own)), rewards[fitted])
    return kernel[:, fitted] @ alpha


def draw_pairs(
    prompts: Int[ndarray, " answers"], part: ndarray, *, n: int, generator: np.random.Generator
) -> Int[ndarray, "pairs two"]:
    """Pairs of different answers to one prompt of the part."""
    places = [np.flatnonzero(part & (prompts == prompt)) for prompt in np.unique(prompts[part])]
    chosen = generator.integers(len(places), size=n)
    return np.array([generator.choice(places[k], size=2, replace=False) for k in chosen])


def learned_tilt(
    kernel: Float[ndarray, "answers answers"],
    pairs: Int[ndarray, "pairs two"],
    labels: Float[ndarray, " pairs"],
) -> Float[ndarray, " answers"]:
    """Tilts of all answers by kernel Bradley-Terry, its prior's reach chosen by folds."""
    cross = kernel[:, pairs[:, 0]] - kernel[:, pairs[:, 1]]  # [answers, pairs]
    gram = cross[pairs[:, 0]] - cross[pairs[:, 1]]
    fold_of = np.arange(len(pairs)) % N_FOLDS
    scores = np.zeros(len(REACHES))
    for fold in range(N_FOLDS):
        used, out = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        for place, reach in enumerate(REACHES):
            alpha = kernel_bradley_terry(reach * gram[np.ix_(used, used)], labels[used])
            margins = reach * gram[np.ix_(out, used)] @ alpha
            scores[place] -= np.logaddexp(0, np.where(labels[out] > 0.5, -margins, margins)).sum()
    reach = REACHES[int(scores.argmax())]
    return reach * cross @ kernel_bradley_terry(reach * gram, labels)


def kernel_bradley_terry(
    gram: Float[ndarray, "pairs pairs"], labels: Float[ndarray, " pairs"], *, n_steps: int = 30
) -> Float[ndarray, " pairs"]:
    """Dual coefficients `alpha` of the mode: margins are `gram @ alpha`.

    Minimises `sum softplus(-+ margin) + alpha' gram alpha / 2` by Newton steps in the margins.
    """
    alpha = np.zeros(len(labels))
    for _ in range(n_steps):
        margins = gram @ alpha
        chance = expit(margins)
        weights = np.maximum(chance * (1 - chance), 1e-9)
        target = margins + (labels - chance) / weights
        new = np.linalg.solve(gram + np.diag(1 / weights), target)
        if np.abs(gram @ (new - alpha)).max() < 1e-9:
            return new
        alpha = new
    return alpha


def correlation(first: Float[ndarray, " answers"], second: Float[ndarray, " answers"]) -> float:
    """Of two centred vectors; zero where one does not vary."""
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / size if size > 0 else 0.0


def _summary(values: Sequence[float]) -> dict[str, float]:
    interval = bootstrap_interval(np.array(values), generator=generator_for(0, "verdict experts"))
    return {
        "mean": float(np.mean(values)),
        "low": float(interval.low),
        "high": float(interval.high),
    }


def as_markdown(facts: dict[str, Any]) -> str:
    """The comparison as a table."""
    counts = list(facts["correlation"]["psi"])
    rows = {**facts["correlation"], "psi minus coefficients": facts["psi minus coefficients"]}
    lines = [
        "# An expert from verdicts against coefficients from verdicts",
        "",
        f"`python -m research.soup.verdict_experts {facts['library']} --n-prompts "
        f"{facts['n_prompts']}`, seed {facts['seed']}. {facts['n_users']} users, mixtures of the "
        f"library's objectives, {facts['n_answers']} stored answers to {3 * facts['n_prompts']} "
        "prompts: a third for the objectives' experts in closed form, a third for verdicts on "
        "pairs, a third to judge. Correlation, within prompts, of the tilt that a policy's first "
        "order gives an answer with the user's reward by the library's own rewards. Intervals: "
        "95 %, over users, for these prompts, which all users share: other prompts would move "
        "all rows together. Nothing was sampled from the policies.",
        "",
        f"| from | {' | '.join(f'{n} verdicts' for n in counts)} |",
        "|---" * (1 + len(counts)) + "|",
    ]
    lines += [
        f"| {way} | "
        + " | ".join(
            f"{cell['mean']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]" for cell in row.values()
        )
        + " |"
        for way, row in rows.items()
    ]
    lines += [
        "",
        "*coefficients*: Bradley-Terry on the experts' tilts, a soup. *psi*: Bradley-Terry on psi, "
        "an expert of the user's own. *both*: the sum of the two kernels. *stated*: the soup of "
        "the true mixture, which is the closed-form expert of the true reward.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run(main)
