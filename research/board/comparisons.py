"""What users compare: answers to training prompts, and what simulated users prefer of them.

The answers are to prompts of the library's rollouts, two by the base and two by the base under the
sentence of a random objective, as a server that asks would show different ones. What decides is the
user's truth times the rewards that taught the experts, standardised over these answers; no judge of
the board is read. One verdict in ten is a coin flip, the others follow Bradley-Terry.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate import Library, Output, UserStore
from palate.core.errors import InvalidInputError
from palate.core.files import append_jsonl, read_jsonl
from palate.core.progress import progress_of
from palate.core.seeds import derive_seed, generator_for
from palate.core.types import Completion
from palate.preferences.simulated import SimulatedUser
from research.board.library import outputs_of
from research.board.prompts import sampling_of
from research.board.settings import BoardSettings
from research.board.users import BoardUser

GAIN = 2.0  # log-odds per deviation of utility
LAPSE = 0.1  # share of verdicts by a coin
BLOCK = 16  # prompts that are answered at a time
N_ANSWERS = 4  # to each prompt


@dataclass(frozen=True)
class Shown:
    """An answer that can be compared."""

    prompt: str
    text: str
    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """What a user prefers of two answers to one prompt."""

    chosen: Shown
    rejected: Shown


def shown_answers(library: Library, settings: BoardSettings, *, path: Path) -> list[Shown]:
    """Answers to training prompts, made once and kept in the file; several to each prompt.

    Raises:
        InvalidInputError: the library has no rollouts, whose prompts are needed.
    """
    prompts = _training_prompts(library)
    order = generator_for(0, "board pool").permutation(len(prompts))
    wanted = [prompts[place] for place in order[: settings.n_pool_prompts].tolist()]
    rows = read_jsonl(path, what="file of compared answers") if path.is_file() else []
    ready = {str(row["prompt"]) for row in rows}
    missing = [prompt for prompt in wanted if prompt not in ready]
    with progress_of("answers to be compared, prompts") as report:
        for start in range(0, len(missing), BLOCK):
            block = missing[start : start + BLOCK]
            append_jsonl(path, _answered(library, block, settings))
            report(start + len(block), len(missing))
    rows = read_jsonl(path, what="file of compared answers") if path.is_file() else []
    places = {prompt: place for place, prompt in enumerate(wanted)}
    rows = sorted((r for r in rows if r["prompt"] in places), key=lambda r: places[r["prompt"]])
    return [
        Shown(str(r["prompt"]), str(r["text"]), tuple(r["tokens"]), tuple(r["log_probs"]))
        for r in rows
    ]


def require_unseen(prompts: Sequence[str], library: Library) -> None:
    """Return where no expert was trained on any of these prompts, as far as rollouts tell.

    Raises:
        InvalidInputError: a prompt is among those of the library's rollouts.
    """
    if not library.files.rollouts_path.is_file():
        return
    seen = {text.strip() for text in _training_prompts(library)}
    known = next((text for text in prompts if text.strip() in seen), None)
    if known is not None:
        raise InvalidInputError(
            f"The prompt {known[:60]!r} is among those that the experts of "
            f"{library.files.folder.name!r} were trained on; leave it out of the board's prompts."
        )


def _training_prompts(library: Library) -> list[str]:
    path = library.files.rollouts_path
    if not path.is_file():
        raise InvalidInputError(
            f"The library {library.files.folder.name!r} has no rollouts, whose prompts users "
            "compare answers to; leave out the methods that learn from comparisons."
        )
    rows = read_jsonl(path, what="rollouts")
    return list(dict.fromkeys(str(row["prompt"]) for row in rows))


def _answered(
    library: Library, prompts: Sequence[str], settings: BoardSettings
) -> list[dict[str, Any]]:
    """Rows of the file: the different answers to these prompts."""
    names = library.manifest.objective_names
    sampling = sampling_of(library, settings)
    answers: dict[str, list[Output]] = {prompt: [] for prompt in prompts}
    for copy in range(N_ANSWERS):
        generator = generator_for(copy, "board pool", prompts[0])
        place = int(generator.integers(len(names)))
        objective = names[place]
        is_plain = copy < N_ANSWERS // 2 or not library.manifest.objectives[place].instruction
        outputs = outputs_of(
            library,
            prompts,
            method="base" if is_plain else "prompt",
            preference=None if is_plain else {objective: 1.0},
            sampling=sampling,
            seed=derive_seed(copy, "board pool"),
        )
        for prompt, output in zip(prompts, outputs, strict=True):
            answers[prompt].append(output)
    rows: list[dict[str, Any]] = []
    for prompt, own in answers.items():
        different = {output.text: output for output in own if output.text.strip()}
        rows += [
            {
                "prompt": prompt,
                "text": output.text,
                "tokens": list(output.completion.tokens),
                "log_probs": list(output.completion.log_probs),
            }
            for output in different.values()
        ]
    return rows


def standardised_rewards(
    library: Library, shown: Sequence[Shown]
) -> Float[ndarray, "answers objectives"]:
    """`[answers, objectives]`: the teachers' rewards in deviations over these answers."""
    scores = library.rewards.score([one.prompt for one in shown], [one.text for one in shown])
    spread = scores.std(axis=0)
    return (scores - scores.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def compare_all(
    users: Sequence[BoardUser],
    shown: Sequence[Shown],
    rewards: Float[ndarray, "answers objectives"],
    *,
    objectives: Sequence[str],
    n: int,
) -> dict[str, list[Comparison]]:
    """The verdicts of each user, in order; more comparisons hold the first ones again.

    Args:
        users: Their truths decide.
        shown: What is compared.
        rewards: `[answers, objectives]`, in deviations.
        objectives: Names of the columns.
        n: Comparisons of each user, fewer where there are not so many different pairs.

    Raises:
        InvalidInputError: no prompt has two different answers.
    """
    of_prompt: dict[str, list[int]] = {}
    for place, one in enumerate(shown):
        of_prompt.setdefault(one.prompt, []).append(place)
    pairs = [pair for places in of_prompt.values() for pair in combinations(places, 2)]
    if not pairs:
        raise InvalidInputError(
            "No prompt has two different answers that could be compared; raise n_pool_prompts."
        )
    verdicts: dict[str, list[Comparison]] = {}
    for user in users:
        generator = generator_for(0, "board comparisons", user.name)
        truth = np.array([user.truth.get(name, 0.0) for name in objectives])
        chooser = SimulatedUser(truth, gain=GAIN, lapse_share=LAPSE)
        own: list[Comparison] = []
        for place in generator.permutation(len(pairs))[:n].tolist():
            first, second = pairs[place]
            label = chooser.compare(rewards[first] - rewards[second], generator=generator)
            best, other = (first, second) if label else (second, first)
            own.append(Comparison(shown[best], shown[other]))
        verdicts[user.name] = own
    return verdicts


def learn_users(
    store: UserStore,
    library: Library,
    verdicts: Mapping[str, Sequence[Comparison]],
    *,
    counts: Sequence[int],
    words: Mapping[str, str] | None = None,
) -> None:
    """Record each user's first comparisons in the store, under one name for each number of them.

    Every verdict goes through `UserStore.record` under a key, so it counts once. With `words`, user
    to text, the store reads the user's text first, under names of their own.
    """
    counts = [count for count in counts if count > 0]
    with progress_of("comparisons recorded, users") as report:
        for done, (user, own) in enumerate(verdicts.items(), start=1):
            for count in counts:
                name = learned_name(user, count, is_described=words is not None)
                if words is not None and name not in store.users():
                    store.describe(name, words[user])
                record_all(store, library, own[:count], name=name)
            report(done, len(verdicts))


def record_all(store: UserStore, library: Library, own: Sequence[Comparison], *, name: str) -> None:
    """Record comparisons of one user, each under its place."""
    for place, one in enumerate(own):
        chosen, rejected = output_of(library, one.chosen), output_of(library, one.rejected)
        store.record(name, chosen=chosen, rejected=rejected, key=f"{place}")


def learned_name(user: str, n_comparisons: int, *, is_described: bool = False) -> str:
    """How the store knows a user of whom it has so many comparisons, and perhaps words."""
    return f"{user}@{n_comparisons}" + ":words" * is_described


def output_of(library: Library, one: Shown) -> Output:
    """The answer as `Library.generate` gave it."""
    decision = library.decide(one.prompt, method="base")
    completion = Completion(
        library.format(one.prompt), one.text, tokens=one.tokens, log_probs=one.log_probs
    )
    return Output(one.text, decision, completion)
