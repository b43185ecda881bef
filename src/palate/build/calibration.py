"""Calibration: the gain of every method over a grid of preferences, into `methods.json`.

Every method answers the same calibration prompts. Decisions that come out alike (a portfolio's
member for many preferences) are answered once; different ones have seeds of their own, since errors
that the whole grid shares would not average out. The base, which every gain is measured from,
answers each prompt several times. No expert was trained on these prompts, and the judges are
rewards that were fitted on the half of the pairs that the experts' rewards never saw.

Source: methods beyond.md, section 4.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from pydantic import Field, field_validator

from palate.core.decision import Decision, Known
from palate.core.errors import InvalidInputError
from palate.core.files import hash_value
from palate.core.progress import progress_of
from palate.core.protocols import SamplingParams
from palate.core.seeds import derive_seed
from palate.core.settings import Settings
from palate.core.simplex import lattice
from palate.library.generate import generate_all
from palate.library.knowledge import can_serve, part_key
from palate.library.library import Library
from palate.library.method_table import MethodRow, MethodTable, save_method_table, table_key
from palate.library.rewards import held_back_rewards
from palate.rewards.reward import RewardVector
from palate.rewards.texts import messages_of

MIN_PROMPTS = 8  # fewer say nothing of a method
N_BASE = 4  # answers of the base to each prompt
BLOCK = 512  # answers that are generated at a time
MEASURED = (
    ("base", 1),
    ("prompt", 1),
    ("portfolio", 1),
    ("soup", 1),
    ("prompted-soup", 1),
    ("output-soup", 1),
    ("mixture", 1),
    ("best-of-n", 4),
    ("prompted-soup", 4),
)  # the implicit soup has the output soup's distribution and costs more

Entry = tuple[str, int]  # a method and its number of candidates


class CalibrationSettings(Settings):
    """How methods are measured when a library is built."""

    # file or list of prompts; without it prompts are held back from the run's
    prompts: str | tuple[str, ...] | None = None
    # how many are answered by every method for every preference of the grid
    n_prompts: int = Field(default=24, ge=MIN_PROMPTS)
    # most preferences: the grid is the lattice with the largest denominator that has no more
    max_points: int = Field(default=60, ge=1)
    temperature: float = Field(default=1.0, gt=0)  # give the one that users are served with
    strength: float | None = Field(default=None, gt=0)  # of soups; `None` measures it
    methods: tuple[str, ...] = ()  # such as `best-of-n@4`; empty: all that the library can serve

    @field_validator("methods")
    @classmethod
    def _are_measured(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        known = [_label(one) for one in MEASURED]
        if unknown := [name for name in methods if name not in known]:
            raise ValueError(f"{unknown[0]!r} is not measured; use any of {', '.join(known)}")
        return methods


@dataclass(frozen=True, eq=False)
class Calibration:
    """One measurement of methods; every method has the same prompts, judges and seed."""

    library: Library
    prompts: tuple[str, ...]
    judges: RewardVector
    sampling: SamplingParams
    seed: int

    def rewards(
        self, decisions: Sequence[Sequence[Decision]], *, on_answers: Callable[[int], None]
    ) -> list[Float[np.ndarray, "prompts objectives"]]:
        """`[points][prompts, objectives]`: rewards of the answers to `[points][prompts]` decisions.

        `on_answers` is called with the number of answers that are done.
        """
        keys = [hash_value([_content(decision) for decision in row]) for row in decisions]
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        different = [decision for key in first for decision in decisions[first[key]]]
        prompts = list(self.prompts) * len(first)
        seeds = [
            derive_seed(self.seed, "calibration", key, prompt)
            for key in first
            for prompt in self.prompts
        ]
        texts: list[str] = []
        for start in range(0, len(different), BLOCK):
            block = slice(start, start + BLOCK)
            outputs = generate_all(
                self.library, different[block], sampling=self.sampling, seeds=seeds[block]
            )
            texts += [output.text for output in outputs]
            on_answers(len(outputs))
        scores = self.judges.score(prompts, texts)
        by_key = dict(zip(first, np.split(scores, len(first)), strict=True))
        return [by_key[key] for key in keys]

    def base_rewards(
        self, *, on_answers: Callable[[int], None]
    ) -> Float[np.ndarray, "prompts objectives"]:
        """`[prompts, objectives]`: mean rewards of several answers of the base to each prompt."""
        decisions = [self.library.decide(p, method="base") for p in map(messages_of, self.prompts)]
        seeds = [derive_seed(self.seed, "base", copy) for copy in range(N_BASE)]
        copies = [replace(self, seed=seed) for seed in seeds]
        rewards = [copy.rewards([decisions], on_answers=on_answers)[0] for copy in copies]
        return np.mean(rewards, axis=0)


def calibrate_methods(
    library: Library,
    prompts: Sequence[str],
    *,
    settings: CalibrationSettings,
    max_tokens: int,
    entries: Sequence[Entry] = MEASURED,
    seed: int = 0,
) -> MethodTable:
    """Measure the methods that `methods.json` lacks, and write it after each of them.

    Rows that were measured in the same library with the same settings stay, so an interrupted
    measurement goes on where it stopped. No expert was trained on the prompts; entries are methods
    with their numbers of candidates, and those that the library cannot serve are left out.

    Raises:
        InvalidInputError: there are too few prompts.
        FormatError: an objective has no reward.
    """
    if len(prompts) < MIN_PROMPTS:
        raise InvalidInputError(
            f"{len(prompts)} calibration prompts say nothing of a method; give at least "
            f"{MIN_PROMPTS}."
        )
    denominator = grid_denominator(
        n_objectives=len(library.manifest.objectives), max_points=settings.max_points
    )
    sampling = SamplingParams(temperature=settings.temperature, max_tokens=max_tokens)
    other = [] if settings.temperature == 1.0 else [settings.temperature]
    settings_key = hash_value([list(prompts), denominator, max_tokens, seed, *other])
    before = library.method_table
    rows = before.rows if before is not None and before.settings_key == settings_key else ()
    have = {(row.method, row.n_candidates) for row in rows}
    wanted = [one for one in entries if not settings.methods or _label(one) in settings.methods]
    missing = [one for one in wanted if one not in have and can_serve(library, one[0])]
    if before is not None and rows and not missing:
        return before
    judges, self_judged = held_back_rewards(library.files)
    table = MethodTable(
        objectives=library.manifest.objective_names,
        denominator=denominator,
        n_prompts=len(prompts),
        rows=rows,
        seed=seed,
        self_judged=self_judged,
        key=table_key(library.manifest, library.strength, library.floor),
        settings_key=settings_key,
    )
    work = Calibration(library, tuple(prompts), judges, sampling, seed)
    for row in _rows(work, missing, denominator=denominator):  # saved one by one
        table = replace(table, rows=(*table.rows, row))
        save_method_table(library.files, table)
        library.__dict__["method_table"] = table  # in place of the cached one
    return table


def _label(entry: Entry) -> str:
    return entry[0] if entry[1] == 1 else f"{entry[0]}@{entry[1]}"


def grid_denominator(*, n_objectives: int, max_points: int) -> int:
    """The largest denominator, at most 10, whose lattice has no more than so many points."""
    for denominator in range(10, 1, -1):
        if len(lattice(n_objectives=n_objectives, denominator=denominator)) <= max_points:
            return denominator
    return 1


def _rows(work: Calibration, entries: Sequence[Entry], *, denominator: int) -> Iterator[MethodRow]:
    """Every method over the whole grid, as soon as it is measured."""
    names = work.library.manifest.objective_names
    points = lattice(n_objectives=len(names), denominator=denominator)
    n_prompts = len(work.prompts)
    with progress_of("measure methods, answers at most") as report:
        n_all, n_done = n_prompts * (N_BASE + len(points) * len(entries)), [0]

        def advance(n: int) -> None:
            n_done[0] += n
            report(n_done[0], n_all)

        base = work.base_rewards(on_answers=advance)
        for place, entry in enumerate(entries, start=1):
            row = _measured(work, entry, points, base=base, on_answers=advance)
            if row is not None:
                yield row
            n_done[0] = n_prompts * (N_BASE + len(points) * place)  # equal answers are made once
            report(n_done[0], n_all)


def _measured(
    work: Calibration,
    entry: Entry,
    points: Float[np.ndarray, "points objectives"],
    *,
    base: Float[np.ndarray, "prompts objectives"],
    on_answers: Callable[[int], None],
) -> MethodRow | None:
    """One method's gains over the base; `None` where it refuses every preference of the grid."""
    decisions = [_decisions(work, entry, point) for point in points]
    served = [row for row in decisions if row is not None]
    if not served:
        return None
    rewards = np.full((len(points), *base.shape), np.nan)
    if entry == ("base", 1):
        rewards[:] = base  # the base gains nothing over itself
    else:
        is_served = np.array([row is not None for row in decisions])
        rewards[is_served] = np.stack(work.rewards(served, on_answers=on_answers))
    differences = rewards - base
    utility = np.einsum("pqo,po->pq", differences, points)
    return MethodRow(
        method=entry[0],
        n_candidates=entry[1],
        n_passes=float(np.mean([row[0].n_passes for row in served])),
        gains=utility.mean(axis=1),
        standard_errors=utility.std(axis=1, ddof=1) / np.sqrt(utility.shape[1]),
        rewards=differences.mean(axis=1),
        part=part_key(work.library, entry[0]),
    )


def _decisions(
    work: Calibration, entry: Entry, point: Float[np.ndarray, " objectives"]
) -> list[Decision] | None:
    """The decisions for one preference, prompt by prompt; `None` where the method refuses it.

    A system prompt, for example, is empty for objectives without a sentence.
    """
    method, n_candidates = entry
    names = work.library.manifest.objective_names
    shares = {name: share for name, share in zip(names, point.tolist(), strict=True) if share > 0}
    known = Known(preference=shares)
    try:
        return [
            work.library.decide(prompt, known, method=method, n_candidates=n_candidates)
            for prompt in map(messages_of, work.prompts)
        ]
    except InvalidInputError:
        return None


def _content(decision: Decision) -> list[object]:
    """What determines the answer, the seed aside."""
    messages = decision.messages
    plain = messages if isinstance(messages, str) else [dict(message) for message in messages]
    return [
        plain,
        decision.plan.to_json(),
        decision.n_candidates,
        dict(decision.ranking) if decision.n_candidates > 1 else {},
    ]
