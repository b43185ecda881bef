"""The run of the small world: an ordinary run file with the files that it names.

Simulated annotators compare answers of the base, sampled as the build samples its rollouts. Their
pairs go into one file per objective; rewards are learned from these files and from nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from palate.build.calibration import CalibrationSettings
from palate.build.mixture_fit import MixtureRun
from palate.build.run_file import ObjectiveSettings, RewardSource, RunSettings
from palate.core.files import (
    dump_json,
    hash_value,
    write_folder_atomic,
    write_jsonl,
    write_text_atomic,
)
from palate.core.progress import progress_of
from palate.core.seeds import derive_seed, generator_for
from palate.core.settings import load_settings
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.models.chat import format_messages
from palate.models.load import load_base
from palate.training.job import TrainSettings
from palate.training.placement import AdapterSettings
from palate.training.rollouts import RolloutJob, RolloutSettings, sample_answers
from research.command_line import Seed, run
from research.world.annotators import annotate, pair_up, sample_annotators
from research.world.objectives import OBJECTIVES, USERS
from research.world.prompts import MAX_ANSWER_TOKENS, base_folder, further_prompts, train_prompts

PROMPTS, CALIBRATION = "prompts.jsonl", "calibration.jsonl"
WORLD_FIT = (  # a fresh trunk of 0.2 M parameters that learns in minutes on one core
    "fit.prompts=full",  # better than each expert's own sentence on training prompts, docs/log.md
    "fit.blend=0.5",  # rows of one objective alone follow one sentence per token, docs/mixture.md
    "fit.loss.eta=32.0",
    "fit.loss.price=0.03125",
    "fit.loss.is_replayed=true",
    "fit.trunk.hidden=64",
    "fit.trunk.layers=1",
    "fit.trunk.heads=2",
    "fit.trunk.feed_forward=128",
    "fit.n_updates=8",
    "fit.n_pairs=128",  # few large updates: small ones make the shares follow noise, docs/log.md
    "fit.n_epochs=2",
    "fit.batch_pairs=16",
    "fit.body_rate=1.0e-3",
    "fit.head_rate=3.0e-3",
    "fit.judge_temperature=4.0",
    "fit.max_tokens=80",
    "fit.checkpoint_every=1",
)


@dataclass(frozen=True)
class Annotation:
    """Which answers are compared, and by how many annotators.

    Attributes:
        n_prompts: The first so many training prompts.
        n_completions: Answers of the base to each.
        n_annotators: Simulated users.
        n_pairs: Labelled pairs per objective.
    """

    n_prompts: int = len(train_prompts())
    n_completions: int = 8
    n_annotators: int = 20
    n_pairs: int = 4000


def world_run(folder: Path, *, seed: int = 0, annotation: Annotation = Annotation()) -> RunSettings:
    """The run's settings; the files that it names are written into `folder` if they are missing.

    Steps, learning rate, rank and number of pairs were chosen on training prompts that were kept
    out of the rollouts (docs/log.md), never on held-out ones.
    """
    rollouts = RolloutSettings(
        num_generations=annotation.n_completions, max_completion_length=MAX_ANSWER_TOKENS
    )
    inputs = folder / f"world-{hash_value([seed, vars(annotation)])[:8]}"
    if not inputs.exists():
        write_folder_atomic(
            inputs, partial(_write_inputs, rollouts=rollouts, annotation=annotation, seed=seed)
        )
    return RunSettings(
        model_name_or_path=str(base_folder()),
        prompts=str(inputs / PROMPTS),
        objectives=tuple(
            ObjectiveSettings(
                name=objective.name,
                description=objective.description,
                instruction=objective.instruction,
                reward=RewardSource(
                    pairs=inputs / f"{objective.name}.jsonl",
                    trunk_settings=("ridge=1",),  # what cross-validation mostly chose
                ),
            )
            for objective in OBJECTIVES
        ),
        rollouts=rollouts,
        adapter=AdapterSettings(r=8),
        training=TrainSettings(beta=0.1, max_steps=50, learning_rate=1.5e-3),
        calibration=CalibrationSettings(prompts=str(inputs / CALIBRATION)),
        seed=seed,
    )


def world_mixture(overrides: Sequence[str] = ()) -> MixtureRun:
    """How the world's controller is trained: on its eight users, all with even shares."""
    found = load_settings(MixtureRun, overrides=[*WORLD_FIT, *overrides])
    shares = tuple(
        {objective.name: 1.0 / len(user.objectives) for objective in user.objectives}
        for user in USERS
    )
    return found.model_copy(
        update={
            "prompts": found.prompts or train_prompts(),
            "combinations": found.combinations or shares,
        }
    )


def _write_inputs(
    folder: Path, *, rollouts: RolloutSettings, annotation: Annotation, seed: int
) -> None:
    """Prompts, calibration prompts, and one file of pairs per objective."""
    prompts = train_prompts()[: annotation.n_prompts]
    write_jsonl(folder / PROMPTS, [{"prompt": text} for text in prompts])
    pool = further_prompts()
    order = generator_for(seed, "calibration prompts").permutation(len(pool))
    n_prompts = CalibrationSettings().n_prompts
    write_jsonl(folder / CALIBRATION, [{"prompt": pool[k]} for k in sorted(order[:n_prompts])])
    answers = _answers(prompts, rollouts, folder / "answers.jsonl", seed=seed)
    comparisons = pair_up(prompts=list(answers), answers=list(answers.values()))
    for objective in OBJECTIVES:
        generator = generator_for(seed, "annotators", objective.name)
        shown = generator.permutation(len(comparisons))[: annotation.n_pairs]
        pairs = annotate(
            objective.name,
            [comparisons[k] for k in shown],
            annotators=sample_annotators(annotation.n_annotators, generator=generator),
            generator=generator,
        )
        rows = [{"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected} for p in pairs]
        write_jsonl(folder / f"{objective.name}.jsonl", rows)


def _answers(
    prompts: tuple[str, ...], settings: RolloutSettings, path: Path, *, seed: int
) -> dict[str, list[str]]:
    """The base's answers by prompt, the same as the rollouts of a build with this seed."""
    base = load_base(base_folder())
    with progress_of("sample answers for annotators, prompts") as report:
        rows = sample_answers(
            LocalEngine(base, AdapterBank(base, {})),
            RolloutJob(prompts, settings, derive_seed(seed, "rollouts")),
            path,
            as_read=lambda prompt, _instruction: format_messages(base, prompt),
            on_progress=report,
        )
    answers: dict[str, list[str]] = {}
    for row in rows:
        answers.setdefault(row.prompt, []).append(row.completion)
    return answers


def main(
    *,
    out: Annotated[Path, typer.Option(help="Folder of run files, prompts and pairs.")] = Path(
        "out/world"
    ),
    seed: Seed = 0,
) -> None:
    """Write `run.yaml` for `palate build` and `mixture.yaml` for `palate mixture fit`."""
    for name, settings in (
        ("run", world_run(out.resolve(), seed=seed)),
        ("mixture", world_mixture()),
    ):
        content = settings.model_dump(mode="json", exclude_none=True)
        write_text_atomic(out / f"{name}.yaml", dump_json(content) + "\n")  # JSON is YAML
        typer.echo(str(out / f"{name}.yaml"))


if __name__ == "__main__":
    run(main)
