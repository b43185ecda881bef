r"""What portfolios of a real library's soups lose, by size, and by the way that chose the members.

    python -m libraries.portfolios smollm2-135m --objectives elementary,expert \
        --prompts portfolio.jsonl --held-out koala.jsonl questions.jsonl \
        --work DIR --out reports/NAME

A policy is the soup of the objectives' own experts for one preference, as the library serves it, so
nothing is trained. Members are chosen by the library's rewards on prompts of `--prompts`; losses
are counted by judges that taught nobody, on held-out prompts, against the best of all policies,
those of a dense grid among them. Each seed has prompts, answers and random anchors of its own.

Measurements are kept in `--work`, one row for each policy and side, and made once; a row of other
prompts, answers or experts is none.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from libraries.evaluate import held_out
from palate import Library
from palate.build.grow import preference_name
from palate.build.payoff_job import PayoffEstimator
from palate.core.files import append_jsonl, hash_value, read_jsonl
from palate.core.progress import progress_of
from palate.core.seeds import derive_seed, generator_for
from palate.core.simplex import lattice
from palate.library.policy import Measured, Policy
from palate.library.rewards import library_rewards
from palate.portfolio.adaptive import SearchSettings, steps
from palate.portfolio.payoffs import Measurements, Payoffs, payoffs_from_measurements
from palate.rewards.reward import RewardVector
from palate.training.rollouts import RewardScores
from research.board.judges import Judges, judges_of
from research.portfolio.baselines import random_anchors, uniform_anchors
from research.portfolio.world_losses import compare_methods
from research.portfolio.world_policies import Estimates, Trained, WorldStudySettings
from research.portfolio.world_report import LOSS, study_tables, write_study

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
    rewards = rewards_of(library, names)
    pools = {
        SEEN: held_out([options.prompts], options.n_prompts * len(settings.seeds)),
        JUDGED: held_out(options.held_out, options.n_prompts * len(settings.seeds)),
    }
    for side, pool in pools.items():
        if len(pool) < options.n_prompts * len(settings.seeds):
            parser.error(
                f"There are {len(pool)} prompts to be {side}, but {options.n_prompts} are needed "
                f"for each of {len(settings.seeds)} seeds; give more files or fewer --n-prompts."
            )
    measured: list[Trained] = []
    for place, seed in enumerate(settings.seeds):
        own = slice(place * options.n_prompts, (place + 1) * options.n_prompts)
        estimators = {
            side: PayoffEstimator(
                base=library.base,
                prompts=tuple(pool[own]),
                reward=rewards[side],
                reward_key=f"{side} {hash_value([names, library.manifest.to_json()['rewards']])}",
                n_answers=1,
                max_tokens=MAX_TOKENS,
                seed=derive_seed(seed, "portfolios", side),
                temperature=library.sampling.temperature,
            )
            for side, pool in pools.items()
        }
        path = options.work / f"{'-'.join(names)}-{seed}.jsonl"
        soups = Soups(library, names, estimators, options.beta, path)
        measured.append(soups_of(soups, settings, seed=seed, denominator=options.denominator))
    study = compare_methods(measured, settings=settings)
    title = f"Portfolios of soups of {', '.join(names)}"
    about = (
        f"Library {options.library}, price of a nat {options.beta:g}, {options.n_prompts} prompts "
        f"to choose by and {options.n_prompts} others to judge by for each of seeds "
        f"{options.seeds}, at most {MAX_TOKENS} tokens; grid with denominator "
        f"{options.denominator}, {options.size} members and {options.calls} calls at most."
    )
    text = f"# {title}\n\n{about}\n\n![{LOSS}]({options.out.name}.png)\n\n{study_tables(study)}"
    write_study(study, options.out, title=title, text=text)


def rewards_of(library: Library, names: Sequence[str]) -> dict[str, RewardScores]:
    """By side: the library's rewards of these objectives, and those that judge them."""
    taught = {one.objective: one for one in library_rewards(library.files).rewards}
    return {
        SEEN: RewardVector(tuple(taught[name] for name in names)),
        JUDGED: Judging(judges_of(library), tuple(names)),
    }


@dataclass(frozen=True, eq=False)
class Judging:
    """The mean of an objective's judges of meaning and of form."""

    judges: Judges
    objectives: tuple[str, ...]

    def score(
        self, prompts: Sequence[str], answers: Sequence[str]
    ) -> Float[ndarray, "texts objectives"]:
        """`[texts, objectives]` in [0, 1]."""
        rows = [
            [
                np.mean([one[name] for one in (row.meaning, row.form) if name in one])
                for name in self.objectives
            ]
            for row in self.judges.judge(prompts, answers)
        ]
        return np.array(rows)


@dataclass(eq=False)
class Soups:
    """An oracle whose policies are soups of the objectives' experts, as the library serves them."""

    library: Library
    objectives: tuple[str, ...]
    estimators: dict[str, PayoffEstimator]  # by side
    beta: float
    path: Path  # of the measurements
    policies: dict[str, Policy] = field(default_factory=dict)

    @cached_property
    def _rows(self) -> dict[str, Measured]:
        rows = read_jsonl(self.path, what="measurements") if self.path.is_file() else []
        return {row["key"]: Measured.from_json(row) for row in rows}

    def policy(self, preference: Float[ndarray, " objectives"]) -> str:
        """Name of the soup for this preference."""
        shares = np.asarray(preference, dtype=np.float64)
        name = f"soup-{preference_name(shares, self.objectives)}"
        coefficients = {
            objective: self.library.strength * float(share)
            for objective, share in zip(self.objectives, shares, strict=True)
            if share > 0
        }
        self.policies[name] = Policy(name, "soup", tuple(shares.tolist()), coefficients)
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
            rewards=np.array([row.rewards for row in rows]),
            kl=np.array([row.kl for row in rows]),
            beta=self.beta,
            preferences=np.array([self.policies[name].preference for name in policies]),
        )

    def measured(self, name: str, side: str) -> Measured:
        """One policy's answers on a side, scored and priced; stored."""
        policy, estimator = self.policies[name], self.estimators[side]
        experts = {name: self.library.manifest.expert(name).key for name in policy.coefficients}
        key = hash_value([estimator.fingerprint, policy.coefficients, experts])
        if key not in self._rows:
            bank = self.library.bank
            self._rows[key] = estimator.measure(policy.plan(bank.names), bank)
            append_jsonl(self.path, [{"key": key, "policy": name, **self._rows[key].to_json()}])
        return self._rows[key]


def soups_of(soups: Soups, settings: WorldStudySettings, *, seed: int, denominator: int) -> Trained:
    """One seed's policies, measured on both sides."""
    n, sizes = len(settings.objectives), range(1, settings.max_size + 1)
    uniform = tuple(
        tuple(soups.policy(anchor) for anchor in uniform_anchors(n_objectives=n, size=size))
        for size in sizes
    )
    anchors = random_anchors(
        n_objectives=n,
        size=settings.max_size,
        generator=generator_for(seed, "random anchors"),
    )
    random = tuple(soups.policy(anchor) for anchor in anchors)
    rules = SearchSettings(tolerance=0.0, max_calls=settings.max_calls)
    searched: tuple[str, ...] = ()
    for state in steps(Estimates(soups), rules):
        searched = state.payoffs.table.policies
    dense = [soups.policy(point) for point in lattice(n_objectives=n, denominator=denominator)]
    names = tuple(dict.fromkeys([*(k for row in uniform for k in row), *random, *searched, *dense]))
    with progress_of(f"seed {seed}, policies") as report:
        for done, name in enumerate(names, start=1):
            for side in (SEEN, JUDGED):
                soups.measured(name, side)
            report(done, len(names))
    texts = tuple(soups.measured(name, JUDGED).texts for name in names)
    seen, judged = (soups.measurements(names, side) for side in (SEEN, JUDGED))
    return Trained(seed, seen, judged, texts, uniform, random, searched)


if __name__ == "__main__":
    main()
