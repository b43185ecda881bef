"""What a comparison on the small world needs: per seed a library, bespoke experts, and rivals.

    SEED/library       six experts, one per objective, as `palate demo` trains them; its controller
    SEED/bespoke       one expert per person, trained for that person's preference: the ceiling
    SEED/conditioned   one adapter for everybody, trained with the preference in the prompt

All three are trained on the same rollouts with the same rewards. The conditioned policy is the
baseline of multi-objective reinforcement learning: one model that is told what is wanted.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palate.core.files import write_folder_atomic
from palate.core.seeds import derive_seed
from palate.core.settings import load_settings
from palate.evaluate.suite import PersonSettings, Suite
from palate.experts.anchors import Anchor, AnchorSettings
from palate.experts.job import ExpertJob, TrainingData
from palate.experts.library import Library
from palate.experts.pairs import Sequences
from palate.experts.rollouts import Rollout, read_rollouts
from palate.experts.save import PARAMETERS, fill_expert_folder
from palate.experts.train import deterministic, sequence_log_probs, train_expert
from palate.models.chat import encode_prompt, format_messages
from palate.models.load import Base, load_base
from palate.recipes.build import build_library
from palate.recipes.mixture_fit import WORLD_OVERRIDES, MixtureRun, fit_mixture
from palate.recipes.mixture_open import CONTROLLER_FOLDER, RUN_FILE
from palate.recipes.opened import WORLD, base_path, open_library
from palate.recipes.progress import progress_of
from palate.recipes.run_file import RunSettings
from palate.recipes.world_run import world_run
from palate.world.objectives import PEOPLE

CONDITIONED_STEPS = 150  # of one policy for eight people; an expert for one objective takes 50
PEOPLE_PER_PROMPT = 2  # whose wishes each training prompt is given with
QUICK_STEPS = 6


@dataclass(frozen=True)
class Libraries:
    """Folders of one seed; `None` is not there.

    Attributes:
        library: The experts.
        bespoke: One expert per person, named after them in lower case.
        conditioned: A PEFT folder.
    """

    library: Path
    bespoke: Path | None
    conditioned: Path | None


def world_people() -> tuple[PersonSettings, ...]:
    """The world's eight."""
    return tuple(
        PersonSettings(
            name=person.name,
            preference={one.name: 1.0 / len(person.objectives) for one in person.objectives},
            instruction=person.instruction,
        )
        for person in PEOPLE
    )


def world_libraries(suite: Suite, *, seed: int, work: Path) -> Libraries:
    """Everything of one seed, built where it is missing; what is there is not built again."""
    run = _run(suite, seed=seed)
    people = suite.people or world_people()
    library, bespoke, conditioned = (work / n for n in ("library", "bespoke", "conditioned"))
    build_library(run, out=library)
    if "mixture" in suite.ways and not (library / CONTROLLER_FOLDER / RUN_FILE).is_file():
        _fit_controller(library, suite=suite, seed=seed)
    has_bespoke = "bespoke" in suite.ways
    if has_bespoke:
        _build_bespoke(run, people, source=library, out=bespoke)
    has_conditioned = "conditioned" in suite.ways
    if has_conditioned and not (conditioned / PARAMETERS).is_file():
        _train_conditioned(run, people, library=library, out=conditioned, suite=suite)
    return Libraries(
        library, bespoke if has_bespoke else None, conditioned if has_conditioned else None
    )


def _run(suite: Suite, *, seed: int) -> RunSettings:
    run = world_run(seed=seed)
    if not suite.is_quick:
        return run
    rollouts = run.rollouts.model_copy(update={"n_prompts": 24})
    training = run.training.model_copy(update={"n_steps": QUICK_STEPS})
    return run.model_copy(update={"rollouts": rollouts, "training": training})


def _build_bespoke(
    run: RunSettings, people: Sequence[PersonSettings], *, source: Path, out: Path
) -> None:
    """The same rollouts and rewards, experts for people instead of objectives."""
    if not out.exists():
        write_folder_atomic(
            out, lambda target: shutil.copytree(source, target, dirs_exist_ok=True) and None
        )
    listed = {person.name.lower(): dict(person.preference) for person in people}
    anchors = AnchorSettings(kind="list", listed=listed)
    build_library(run.model_copy(update={"anchors": anchors}), out=out)


def _fit_controller(library: Path, *, suite: Suite, seed: int) -> None:
    overrides = [*WORLD_OVERRIDES, f"fit.seed={seed}"]
    if suite.is_quick:
        overrides += ["fit.n_updates=2", "fit.n_pairs=8", "n_measured=2"]
    settings = load_settings(MixtureRun, overrides=overrides)
    with progress_of(f"controller of seed {seed}, updates") as report:
        fit_mixture(open_library(library), settings, on_update=report)


def _train_conditioned(
    run: RunSettings,
    people: Sequence[PersonSettings],
    *,
    library: Path,
    out: Path,
    suite: Suite,
) -> None:
    opened = Library.open(library)
    base = load_base(base_path(WORLD))
    rollouts = read_rollouts(opened.rollouts_path, objectives=run.objective_names)
    with deterministic(n_threads=run.training.n_threads):
        data = conditioned_data(base, rollouts, people, objectives=run.objective_names)
        n_objectives = len(run.objective_names)
        even = (1.0 / n_objectives,) * n_objectives  # the utility stands in every column
        n_steps = QUICK_STEPS if suite.is_quick else CONDITIONED_STEPS
        job = ExpertJob(
            Anchor("conditioned", run.objective_names, even),
            run.adapter,
            run.training.model_copy(update={"n_steps": n_steps}),
            derive_seed(run.seed, "conditioned"),
        )
        with progress_of("conditioned policy, steps") as report:
            model = train_expert(base, job, data, on_step=report)
    card = "# One policy for everybody, told in words what is wanted\n"
    write_folder_atomic(
        out,
        lambda target: fill_expert_folder(target, model=model, base_path=base.path, card=card),
    )


def conditioned_data(
    base: Base,
    rollouts: Sequence[Rollout],
    people: Sequence[PersonSettings],
    *,
    objectives: Sequence[str],
) -> TrainingData:
    """The rollouts under wishes: each prompt as two people ask it, paid by their utility.

    The answers were drawn without the wish; REBEL takes pairs from anywhere, and its reference is
    the base that reads the wish.
    """
    prompts = list(dict.fromkeys(row.prompt for row in rollouts))
    asked: list[Rollout] = []
    contexts: list[tuple[int, ...]] = []
    for row in rollouts:
        place = prompts.index(row.prompt)
        for turn in range(min(PEOPLE_PER_PROMPT, len(people))):
            person = people[(place * PEOPLE_PER_PROMPT + turn) % len(people)]
            shares = np.array([person.preference.get(name, 0.0) for name in objectives])
            utility = float(shares @ np.array(row.rewards))
            asked.append(
                Rollout(
                    prompt=f"{person.name}: {row.prompt}",
                    completion=row.completion,
                    tokens=row.tokens,
                    log_prob=row.log_prob,
                    rewards=(utility,) * len(objectives),
                    finish=row.finish,
                )
            )
            messages = [
                {"role": "system", "content": person.instruction},
                {"role": "user", "content": row.prompt},
            ]
            contexts.append(tuple(encode_prompt(base, format_messages(base, messages))))
    sequences = Sequences(tuple(contexts), tuple(row.tokens for row in asked))
    return TrainingData(
        rollouts=asked, sequences=sequences, reference=sequence_log_probs(base.model, sequences)
    )
