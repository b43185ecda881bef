"""From a run file to a library: sample the base, make rewards, score, train one expert per anchor.

Every part is entered into the library when it is whole, under a hash of everything that determines
it. A build that was interrupted, or is run again with other settings, makes only what is missing.
"""

from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

from palate.core.files import hash_value
from palate.core.seeds import derive_seed
from palate.core.types import PreferencePair
from palate.experts.anchors import Anchor, make_anchors
from palate.experts.card import render_card
from palate.experts.job import UNTRACKED, ExpertJob, Tracking, TrainingData, require_tracker
from palate.experts.library import Library
from palate.experts.manifest import BaseRecord, ExpertRecord, Manifest
from palate.experts.pairs import Sequences
from palate.experts.rollouts import (
    RewardScores,
    Rollout,
    RolloutJob,
    read_rollouts,
    sample_answers,
    score_rollouts,
    write_rollouts,
)
from palate.experts.save import fill_expert_folder
from palate.experts.train import deterministic, require_trl, rollout_data, tilt_of, train_expert
from palate.models.bank import AdapterBank
from palate.models.chat import format_messages
from palate.models.engine import LocalEngine
from palate.models.load import Base, load_base
from palate.recipes.opened import WORLD, base_path
from palate.recipes.progress import progress_of
from palate.recipes.reward_sources import (
    add_reward,
    human_pairs,
    library_rewards,
    require_sources,
)
from palate.recipes.run_file import RunSettings, read_prompts
from palate.world.prompts import train_prompts

_PACKAGES = ("palate", "torch", "transformers", "peft", "trl")
_N_TILTS = 256  # rollouts that an expert's tilt is measured on


@dataclass(frozen=True)
class Built:
    """A finished build.

    Attributes:
        library: With all its experts.
        trained: Experts that this run trained; the others were there.
        seconds: Wall clock of this run.
    """

    library: Library
    trained: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The outcome as plain data."""
        manifest = self.library.manifest
        return {
            "library": str(self.library.folder),
            "base": manifest.base.path,
            "objectives": list(manifest.objective_names),
            "experts": [
                {
                    "name": record.anchor.name,
                    "direction": dict(
                        zip(manifest.objective_names, record.anchor.direction, strict=True)
                    ),
                    "tilt_mean": record.tilt_mean,
                    "tilt_sd": record.tilt_sd,
                    "is_trained_now": record.anchor.name in self.trained,
                }
                for record in manifest.experts
            ],
            "seconds": round(self.seconds, 1),
        }


def build_library(settings: RunSettings, *, out: Path) -> Built:
    """The library of a run file, in the folder `out`; goes on where an earlier build stopped.

    Raises:
        InvalidInputError: a setting, a file, a reward or a folder is not as it must be.
        FormatError: the folder holds a library of another base or other objectives.
        MissingExtraError: TRL is of another version.
    """
    start = monotonic()
    require_trl()
    require_tracker(settings.report_to)
    require_sources(settings.objectives, seed=settings.seed)
    with deterministic(n_threads=settings.training.n_threads):
        base = load_base(
            base_path(settings.base),
            revision=settings.revision,
            dtype=settings.dtype,
            device=settings.device,
        )
        anchors = make_anchors(
            settings.anchors, objectives=settings.objective_names, seed=settings.seed
        )
        library = Library.create(out, _manifest(settings, base))
        library, data = _with_rollouts(library, settings, base)
        library, trained = _with_experts(library, settings, base, anchors, data)
        library = library.with_experts_of(tuple(anchor.name for anchor in anchors))
    return Built(library, trained, monotonic() - start)


def base_record(name: str, base: Base) -> BaseRecord:
    """What a manifest says of the base that was loaded under this name."""
    return BaseRecord(name, base.revision, base.fingerprint, base.tokenizer_fingerprint)


def _manifest(settings: RunSettings, base: Base) -> Manifest:
    return Manifest(
        base=base_record(settings.base, base),
        objectives=settings.named_objectives(),
        beta=settings.training.beta,
        seed=settings.seed,
        versions={name: version(name) for name in _PACKAGES},
        config=settings.model_dump(mode="json"),
    )


def _with_rollouts(
    library: Library, settings: RunSettings, base: Base
) -> tuple[Library, "_Scored"]:
    """The library with rollouts and rewards, and what was read of them."""
    prompts = _prompts(settings)
    job = RolloutJob(prompts, settings.rollouts, derive_seed(settings.seed, "rollouts"))
    sampling_key = hash_value(
        {
            "base": base.fingerprint,
            "prompts": prompts,
            "settings": settings.rollouts.model_dump(),
            "seed": job.seed,
            "dtype": settings.dtype,
        }
    )
    library = library.with_rollouts_begun(key=sampling_key)
    if library.has_rollouts(key=sampling_key):
        answers = read_rollouts(library.rollouts_path, objectives=settings.objective_names)
    else:
        answers = _sampled(library, job, base)
    for objective in settings.objectives:
        library = add_reward(library, objective, answers, seed=settings.seed)
    reward = library_rewards(library)
    rollouts = score_rollouts(answers, reward)
    if not library.has_rollouts(key=sampling_key) or rollouts != answers:
        library = library.with_rollouts(
            key=sampling_key,
            write=lambda path: write_rollouts(path, rollouts, objectives=settings.objective_names),
        )
    return library, _Scored(tuple(rollouts), reward)


@dataclass(frozen=True)
class _Scored:
    """The base's answers with the rewards that scored them."""

    rollouts: tuple[Rollout, ...]
    reward: RewardScores


def _prompts(settings: RunSettings) -> tuple[str, ...]:
    found = train_prompts() if settings.prompts == WORLD else read_prompts(Path(settings.prompts))
    return found[: settings.rollouts.n_prompts or None]


def _sampled(library: Library, job: RolloutJob, base: Base) -> list[Rollout]:
    engine = LocalEngine(base, AdapterBank(base, {}))
    with progress_of("sample the base, prompts") as report:
        return sample_answers(
            engine,
            job,
            library.unfinished_rollouts,
            as_read=lambda prompt: format_messages(base, prompt),
            on_progress=report,
        )


def _with_experts(
    library: Library,
    settings: RunSettings,
    base: Base,
    anchors: tuple[Anchor, ...],
    scored: _Scored,
) -> tuple[Library, tuple[str, ...]]:
    """The library with an expert per anchor, and the names of those trained now."""
    pairs = _human_pairs(settings)
    jobs = {
        anchor.name: ExpertJob(
            anchor,
            settings.adapter,
            settings.training,
            derive_seed(settings.seed, "experts"),
        )
        for anchor in anchors
    }
    keys = {name: _expert_key(library, job, pairs) for name, job in jobs.items()}
    missing = [name for name in jobs if not library.has_expert(name, key=keys[name])]
    if not missing:
        return library, ()
    library = library.with_experts_of(tuple(name for name in jobs if name not in missing))
    data = rollout_data(base, scored.rollouts)
    data = replace(
        data,
        human_pairs=pairs,
        prompts=tuple(dict.fromkeys(row.prompt for row in scored.rollouts)),
        reward=scored.reward,
    )
    for place, name in enumerate(missing, start=1):
        title = f"expert {name} ({place} of {len(missing)}), steps"
        training = _Training(base, data, _tracking(settings, library, name), title)
        library = _with_expert(library, training, jobs[name], key=keys[name])
    return library, tuple(missing)


@dataclass(frozen=True, eq=False)
class _Training:
    """What all experts of a build are trained with, and what to call the work."""

    base: Base
    data: TrainingData
    tracking: Tracking
    title: str


def _with_expert(library: Library, training: _Training, job: ExpertJob, *, key: str) -> Library:
    base, data = training.base, training.data
    with progress_of(training.title) as report:
        model = train_expert(base, job, data, on_step=report, tracking=training.tracking)
    some = Sequences(data.sequences.prompts[:_N_TILTS], data.sequences.answers[:_N_TILTS])
    tilts = tilt_of(model, some, data.reference[:_N_TILTS], beta=job.training.beta)
    manifest = library.manifest
    card = render_card(
        job,
        base=manifest.base,
        tilt=(float(tilts.mean()), float(tilts.std()), len(tilts)),
        versions=dict(manifest.versions),
    )
    record = ExpertRecord(
        job.anchor,
        key,
        files={},
        tilt_mean=float(tilts.mean()),
        tilt_sd=float(tilts.std()),
        n_tilts=len(tilts),
    )
    return library.with_expert(
        record,
        lambda folder: fill_expert_folder(
            folder, model=model, base_path=manifest.base.path, card=card
        ),
    )


def _tracking(settings: RunSettings, library: Library, name: str) -> Tracking:
    if settings.report_to == "none":
        return UNTRACKED
    return Tracking(settings.report_to, library.folder / "logs" / name)


def _human_pairs(settings: RunSettings) -> dict[str, tuple[PreferencePair, ...]]:
    """Pairs by objective; read only where they are trained on."""
    if settings.training.method != "dpo_human":
        return {}
    found = {row.name: human_pairs(row, seed=settings.seed) for row in settings.objectives}
    return {name: pairs.pairs for name, pairs in found.items() if pairs is not None}


def _expert_key(
    library: Library, job: ExpertJob, pairs: dict[str, tuple[PreferencePair, ...]]
) -> str:
    """Hash of everything that determines the expert's parameters."""
    manifest = library.manifest
    rollouts = manifest.rollouts
    return hash_value(
        {
            "base": manifest.base.fingerprint,
            "rollouts": None if rollouts is None else dict(rollouts.files),
            "rewards": {name: part.key for name, part in manifest.rewards.items()},
            "pairs": {
                name: [[pair.prompt, pair.chosen, pair.rejected] for pair in rows]
                for name, rows in pairs.items()
            },
            "anchor": job.anchor.to_json(),
            "adapter": job.adapter.model_dump(),
            "training": job.training.model_dump(),
            "seed": job.seed,
            "dtype": manifest.config["dtype"],
            "device": manifest.config["device"],
            "versions": dict(manifest.versions),
        }
    )
