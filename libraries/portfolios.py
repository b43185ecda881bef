"""What portfolios of a real library's soups lose, by size, and by the way that chose the members.

    python -m libraries.portfolios LIBRARY --objectives elementary,expert --held-out FILE.jsonl ...

A policy is the soup of the objectives' own experts for one preference, as the library serves it, so
nothing is trained. Members are chosen by the library's rewards on prompts of `--prompts`; losses
are counted by judges that taught nobody, on held-out prompts, against the best of all policies,
those of a dense grid among them. Each seed has prompts, answers and random anchors of its own.

Measurements are kept in `--work`, one row for each policy and side, and made once.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from libraries.evaluate import Answers, divergences, held_out
from palate import Library, SamplingParams
from palate.build.grow import preference_name
from palate.core.files import append_jsonl, read_jsonl, write_json, write_text_atomic
from palate.core.progress import progress_of
from palate.core.seeds import derive_seed, generator_for
from palate.core.simplex import lattice
from palate.library.rewards import library_rewards
from palate.portfolio.adaptive import SearchSettings, steps
from palate.portfolio.payoffs import Measurements, Payoffs, payoffs_from_measurements
from research.board.judges import Judges, judges_of
from research.board.library import outputs_of
from research.figures import gap_curves, save_png
from research.portfolio.baselines import random_anchors, uniform_anchors
from research.portfolio.world_losses import METHODS, WorldStudy, compare_methods, study_json
from research.portfolio.world_policies import Estimates, Trained, WorldStudySettings
from research.portfolio.world_report import study_tables

SEEN, JUDGED = "seen", "judged"
MAX_TOKENS = 96


def main() -> None:
    """Measure, compare, and write `NAME.md`, `NAME.json` and `NAME.png`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("library")
    parser.add_argument("--objectives", required=True, help="by comma")
    parser.add_argument("--prompts", type=Path, required=True, help="members are chosen on these")
    parser.add_argument("--held-out", type=Path, nargs="+", required=True)
    parser.add_argument("--seeds", default="0,1,2", help="by comma")
    parser.add_argument("--n-prompts", type=int, default=32, help="of each side and seed")
    parser.add_argument("--size", type=int, default=6, help="most members")
    parser.add_argument("--calls", type=int, default=6, help="policies that the search may make")
    parser.add_argument("--denominator", type=int, default=12, help="of the dense grid")
    parser.add_argument("--beta", type=float, default=0.01, help="price of a nat")
    parser.add_argument("--work", type=Path, required=True, help="folder of the measurements")
    parser.add_argument("--out", type=Path, required=True, help="report, without an ending")
    options = parser.parse_args()
    library = Library.load(options.library, dtype="bfloat16")
    judges = judges_of(library)
    names = tuple(options.objectives.split(","))
    settings = WorldStudySettings.checked(
        {
            "objectives": names,
            "seeds": [int(seed) for seed in options.seeds.split(",")],
            "max_size": options.size,
            "max_calls": options.calls,
            "n_prompts": options.n_prompts,
            "n_answers": 1,
        },
        source="the command line",
    )
    pools = {
        SEEN: held_out([options.prompts], options.n_prompts * len(settings.seeds)),
        JUDGED: held_out(options.held_out, options.n_prompts * len(settings.seeds)),
    }
    measured: list[Trained] = []
    for place, seed in enumerate(settings.seeds):
        own = slice(place * options.n_prompts, (place + 1) * options.n_prompts)
        prompts = {side: tuple(pool[own]) for side, pool in pools.items()}
        path = options.work / f"{'-'.join(names)}-{seed}.jsonl"
        soups = Soups(library, judges, names, prompts, seed, options.beta, path)
        measured.append(soups_of(soups, settings, denominator=options.denominator))
    study = compare_methods(measured, settings=settings)
    title = f"Portfolios of soups of {', '.join(names)}"
    about = (
        f"Library {options.library}, price of a nat {options.beta:g}, {options.n_prompts} prompts "
        f"to choose by and {options.n_prompts} others to judge by for each of seeds "
        f"{options.seeds}, at most {MAX_TOKENS} tokens; grid with denominator "
        f"{options.denominator}, {options.size} members and {options.calls} calls at most."
    )
    write(study, options.out, title=title, about=about)


@dataclass(eq=False)
class Soups:
    """An oracle whose policies are soups of the objectives' experts."""

    library: Library
    judges: Judges
    objectives: tuple[str, ...]
    prompts: dict[str, tuple[str, ...]]  # by side
    seed: int
    beta: float
    path: Path  # of the measurements
    preferences: dict[str, Float[ndarray, " objectives"]] = field(default_factory=dict)

    @cached_property
    def _rows(self) -> dict[tuple[str, str], dict[str, Any]]:
        rows = read_jsonl(self.path, what="measurements") if self.path.is_file() else []
        return {(row["policy"], row["side"]): row for row in rows}

    def policy(self, preference: Float[ndarray, " objectives"]) -> str:
        """Name of the soup for this preference."""
        name = f"soup-{preference_name(np.asarray(preference), self.objectives)}"
        self.preferences[name] = np.asarray(preference, dtype=np.float64)
        return name

    def payoffs(self, policies: Sequence[str]) -> Payoffs:
        """Payoffs of these policies by the library's rewards."""
        return payoffs_from_measurements(self.measurements(policies, SEEN))

    def measurements(self, policies: Sequence[str], side: str) -> Measurements:
        """Measurements of these policies on the prompts of a side."""
        rows = [self.measured(name, side) for name in policies]
        return Measurements(
            objectives=self.objectives,
            policies=tuple(policies),
            rewards=np.array([row["rewards"] for row in rows]),
            kl=np.array([row["kl"] for row in rows]),
            beta=self.beta,
            preferences=np.array([self.preferences[name] for name in policies]),
        )

    def measured(self, name: str, side: str) -> dict[str, Any]:
        """One policy's answers on a side, scored and priced; stored."""
        if (name, side) not in self._rows:
            row = {"policy": name, "side": side, **self._measure(name, side)}
            append_jsonl(self.path, [row])
            self._rows[name, side] = row
        return self._rows[name, side]

    def _measure(self, name: str, side: str) -> dict[str, Any]:
        shares = self.preferences[name] * self.library.strength
        coefficients = {
            objective: float(share)
            for objective, share in zip(self.objectives, shares, strict=True)
            if share > 0
        }
        prompts = list(self.prompts[side])
        outputs = outputs_of(
            self.library,
            prompts,
            method="soup",
            coefficients=coefficients,
            sampling=SamplingParams(
                temperature=self.library.sampling.temperature, max_tokens=MAX_TOKENS
            ),
            seed=derive_seed(self.seed, "portfolios", side),
        )
        texts = [output.text.strip() for output in outputs]
        known = {"method": "soup", "coefficients": coefficients}
        kl = divergences(self.library, Answers(prompts, texts), known, n=len(texts))
        rewards = self._taught(prompts, texts) if side == SEEN else self._judged(prompts, texts)
        return {
            "rewards": rewards.round(6).tolist(),
            "kl": np.nan_to_num(kl).clip(min=0.0).round(6).tolist(),
            "texts": texts,
        }

    def _taught(
        self, prompts: Sequence[str], texts: Sequence[str]
    ) -> Float[ndarray, "texts objectives"]:
        reward = library_rewards(self.library.files)
        columns = [self.library.manifest.objective_names.index(name) for name in self.objectives]
        return np.asarray(reward.score(prompts, texts))[:, columns]

    def _judged(
        self, prompts: Sequence[str], texts: Sequence[str]
    ) -> Float[ndarray, "texts objectives"]:
        """The mean of an objective's judges of meaning and of form, each in [0, 1]."""
        rows = [
            [
                np.mean([one[name] for one in (row.meaning, row.form) if name in one])
                for name in self.objectives
            ]
            for row in self.judges.judge(prompts, texts)
        ]
        return np.array(rows)


def soups_of(soups: Soups, settings: WorldStudySettings, *, denominator: int) -> Trained:
    """One seed's policies, measured on both sides."""
    n, sizes = len(settings.objectives), range(1, settings.max_size + 1)
    uniform = tuple(
        tuple(soups.policy(anchor) for anchor in uniform_anchors(n_objectives=n, size=size))
        for size in sizes
    )
    anchors = random_anchors(
        n_objectives=n,
        size=settings.max_size,
        generator=generator_for(soups.seed, "random anchors"),
    )
    random = tuple(soups.policy(anchor) for anchor in anchors)
    rules = SearchSettings(tolerance=0.0, max_calls=settings.max_calls)
    searched: tuple[str, ...] = ()
    for state in steps(Estimates(soups), rules):
        searched = state.payoffs.table.policies
    dense = [soups.policy(point) for point in lattice(n_objectives=n, denominator=denominator)]
    names = tuple(dict.fromkeys([*(k for row in uniform for k in row), *random, *searched, *dense]))
    with progress_of(f"seed {soups.seed}, policies") as report:
        for done, name in enumerate(names, start=1):
            for side in (SEEN, JUDGED):
                soups.measured(name, side)
            report(done, len(names))
    texts = tuple(
        tuple((text,) for text in soups.measured(name, JUDGED)["texts"]) for name in names
    )
    seen, judged = (soups.measurements(names, side) for side in (SEEN, JUDGED))
    return Trained(soups.seed, seen, judged, texts, uniform, random, searched)


def write(study: WorldStudy, out: Path, *, title: str, about: str) -> None:
    """The report, its numbers and its plot."""
    sizes = list(range(1, study.settings.max_size + 1))
    rows = {method: [study.row(method, size).additive for size in sizes] for method in METHODS}
    curves = {
        method: [(one.value, one.low, one.high) for one in own] for method, own in rows.items()
    }
    label = "largest loss of anybody, reward units"
    save_png(gap_curves(curves, sizes=sizes, y_label=label, title=title), out.with_suffix(".png"))
    write_json(out.with_suffix(".json"), study_json(study))
    text = f"# {title}\n\n{about}\n\n![{label}]({out.name}.png)\n\n{study_tables(study)}"
    write_text_atomic(out.with_suffix(".md"), text)


if __name__ == "__main__":
    main()
