"""The builder: a library being built, ready to train an expert for any anchor.

Rollouts and rewards are made once, when the builder is opened; every expert is then one training
run on the same scored answers. Every part is entered into the library when it is whole, under a
hash of everything that determines it; one that is there already is not made again.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from shutil import rmtree
from typing import Any

from jaxtyping import Float
from numpy import ndarray

from palate.build.reward_sources import add_reward, functions_of, human_pairs, require_sources
from palate.build.run_file import RunSettings, present_keys, run_prompts
from palate.core.decision import with_instruction
from palate.core.files import hash_value
from palate.core.progress import note, progress_of
from palate.core.seeds import derive_seed
from palate.core.types import PreferencePair
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.library.folder import MANIFEST, LibraryFolder
from palate.library.manifest import ExpertRecord, Manifest
from palate.library.opening import base_record
from palate.library.rewards import library_rewards
from palate.models.chat import format_messages, require_answers_fit
from palate.models.load import Base, load_base
from palate.rewards.functions import RewardFunction
from palate.rewards.texts import messages_of
from palate.training.anchors import Anchor
from palate.training.job import ExpertJob, Tracking, TrainingData, require_tracker
from palate.training.pairs import Sequences, encode_rollouts, reference_log_probs
from palate.training.rollouts import (
    RewardScores,
    Rollout,
    RolloutJob,
    own_answers,
    read_rollouts,
    sample_answers,
    score_rollouts,
    write_rollouts,
)
from palate.training.save import fill_expert_folder, render_card
from palate.training.train import require_trl, rollout_data, tilt_of, train_expert

_PACKAGES = ("palate", "torch", "transformers", "peft", "trl")
_N_CHANGES = 3  # that are named of the settings that differ
CACHE = "cache"  # a folder beside the library's parts, which may be deleted
_N_TILTS = 64  # rollouts that an expert's tilt is measured on


class Builder:
    """A library with rollouts and rewards, its base, and the training of experts.

    Its `library` gains an expert with every new anchor.
    """

    def __init__(self, settings: RunSettings, base: Base, library: LibraryFolder) -> None:
        """Sample and score the answers that the library lacks; the first round is open."""
        self.settings = settings
        self.base = base
        self.library, self.rollouts, self.reward = _with_rollouts(library, settings, base)
        self.trained: list[str] = []  # since the builder opened, in order
        self._round = 1
        self._prepared: dict[str, TrainingData] = {}  # by method
        # experts of other settings are dropped, so that a library never mixes the two
        records = self.library.manifest.experts
        current = tuple(row.anchor.name for row in records if self.has(row.anchor))
        if len(current) < len(records):
            self.keep(current)

    @property
    def reward_key(self) -> str:
        """Hash of everything that determines the rewards."""
        return hash_value({name: part.key for name, part in self.library.manifest.rewards.items()})

    def has(self, anchor: Anchor) -> bool:
        """Whether the library has this anchor's expert, of this round or a later one."""
        rounds = range(self._round, self.settings.training.n_rounds + 1)
        keys = [self._key(self.settings.expert_job(anchor), number) for number in rounds]
        return any(self.library.has_expert(anchor.name, key=key) for key in keys)

    def make(self, anchor: Anchor, *, title: str) -> None:
        """Train the anchor's expert, unless it is there already.

        Raises:
            InvalidInputError: the data lack what the method needs, or training diverged.
        """
        if self.has(anchor):
            return
        job = self.settings.expert_job(anchor)
        with progress_of(f"expert {anchor.name} ({title}), steps") as report:
            model = train_expert(
                self.base, job, self._data(job), on_step=report, tracking=self._tracking(job)
            )
        sequences, reference = self._probe
        with progress_of(f"tilt of {anchor.name}, answers") as report:
            tilts = tilt_of(model, sequences, reference, beta=job.training.beta, on_batch=report)
        tilt = (float(tilts.mean()), float(tilts.std()), len(tilts))
        record = ExpertRecord(anchor, self._key(job), {}, *tilt)
        base, versions = self.library.manifest.base, dict(self.library.manifest.versions)
        card = render_card(job, base=base, tilt=tilt, versions=versions)
        self.library = self.library.with_expert(
            record,
            lambda folder: fill_expert_folder(
                folder, model=model, base_path=base.path, card=card, dtype=job.adapter.dtype
            ),
        )
        self.trained.append(anchor.name)
        _forget_checkpoints(self._tracking(job))

    def open_round(self, number: int, anchors: Sequence[Anchor]) -> None:
        """Go on to a round: its experts learn from the last round's experts' answers, too."""
        self._round = number
        if number == 1:
            return
        names = tuple(anchor.name for anchor in anchors)
        before = hash_value(
            [self._key(self.settings.expert_job(anchor), number - 1) for anchor in anchors]
        )
        path = self._cache / f"rollouts-{before[:16]}.jsonl"
        if not path.is_file() and all(self.has(anchor) for anchor in anchors):
            return
        path.parent.mkdir(exist_ok=True)
        folders = {name: self.library.expert_folder(name) for name in names}
        bank = AdapterBank.load(self.base, folders)
        prompts = tuple(dict.fromkeys(row.prompt for row in own_answers(self.rollouts)))
        job = RolloutJob(
            prompts[: self.settings.training.n_round_prompts],
            self.settings.rollouts,
            derive_seed(self.settings.seed, "rollouts", "round", number),
            experts=names,
        )
        answers = _sampled(self.base, bank, job, path, title=f"round {number}: experts answer")
        bank.close()
        self.rollouts = (*self.rollouts, *score_rollouts(answers, self.reward))
        self._prepared.clear()

    def keep(self, names: tuple[str, ...]) -> None:
        """Leave only these experts in the library, in this order."""
        self.library = self.library.with_experts_of(names)

    @cached_property
    def _probe(self) -> tuple[Sequences, Float[ndarray, " answers"]]:
        """The base's own answers that tilts are measured on, and `[answers]` reference log p."""
        rows = own_answers(self.rollouts)[:_N_TILTS]
        sequences = encode_rollouts(self.base, rows)
        return sequences, reference_log_probs(self.base, sequences, folder=self._cache)

    @property
    def _cache(self) -> Path:
        """What is computed once and is no part of the library."""
        return self.library.folder / CACHE

    def _data(self, job: ExpertJob) -> TrainingData:
        """Training data of the job's method; prepared once, and only when it is used."""
        method = job.training.method
        if method not in self._prepared:
            self._prepared[method] = replace(
                rollout_data(
                    self.base, self.rollouts, method=method, folder=self._cache, seed=job.seed
                ),
                human_pairs=self._pairs if method == "dpo_human" else {},
                prompts=tuple(dict.fromkeys(row.prompt for row in self.rollouts)),
                reward=self.reward,
            )
        return self._prepared[method]

    @cached_property
    def _pairs(self) -> dict[str, tuple[PreferencePair, ...]]:
        """Pairs by objective; read only where they are trained on."""
        sets = {row.name: human_pairs(row) for row in self.settings.objectives}
        return {name: pairs.pairs for name, pairs in sets.items() if pairs is not None}

    def _tracking(self, job: ExpertJob) -> Tracking:
        """With a folder of this job's own, so that it goes on from its own checkpoints."""
        folder = self.library.folder / "logs" / job.anchor.name / self._key(job)[:12]
        return Tracking(self.settings.report_to, folder)

    def _key(self, job: ExpertJob, number: int | None = None) -> str:
        """Hash of everything that determines the expert's parameters, in a round."""
        manifest = self.library.manifest
        rollouts = manifest.rollouts
        pairs = self._pairs if job.training.method == "dpo_human" else {}
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
                "training": job.training.model_dump(exclude={"save_steps", "n_rounds"}),
                "round": number or self._round,
                "seed": job.seed,
                "dtype": manifest.config["dtype"],
                "device": manifest.config["device"],
                "versions": dict(manifest.versions),
            }
        )


def _forget_checkpoints(tracking: Tracking) -> None:
    """Remove an expert's checkpoints, and all of its folder unless a tracker's files are there."""
    folder = tracking.folder
    if folder is None or not folder.is_dir():
        return
    for checkpoint in folder.glob("checkpoint-*"):
        rmtree(checkpoint)
    if tracking.report_to == "none":
        rmtree(folder)
        with suppress(OSError):  # other experts' are there
            folder.parent.rmdir()
            folder.parent.parent.rmdir()


def open_builder(
    settings: RunSettings, *, out: Path, reward_funcs: Mapping[str, RewardFunction] | None = None
) -> Builder:
    """The builder of a run file, in the folder `out`; goes on where an earlier build stopped.

    `reward_funcs` are, by objective, rewards that are Python functions.

    Raises:
        InvalidInputError: a setting, a file, a reward or a folder is not as it must be.
        FormatError: the folder holds a library of another base or other objectives.
        MissingExtraError: TRL is of another version, or a tracker is not installed.
    """
    require_trl()
    require_tracker(settings.report_to)
    functions = functions_of(settings.objectives, given=reward_funcs or {}, folder=out)
    require_sources(settings.objectives, functions=functions)
    base = load_base(
        settings.model_name_or_path,
        revision=settings.revision,
        dtype=settings.dtype,
        device=settings.device,
    )
    settings = settings.model_copy(update={"dtype": base.dtype})  # what `auto` came to
    most = settings.rollouts.max_completion_length
    require_answers_fit(base, most, key="rollouts.max_completion_length")
    before = LibraryFolder.open(out).manifest if (out / MANIFEST).is_file() else None
    manifest = Manifest(
        base=base_record(settings.model_name_or_path, base),
        objectives=settings.named_objectives(),
        beta=settings.training.beta,
        seed=settings.seed,
        versions={name: version(name) for name in _PACKAGES},
        config=settings.model_dump(mode="json"),
    )
    library = LibraryFolder.create(out, manifest)
    builder = Builder(settings, base, replace(library, reward_funcs=functions))
    if before is not None:
        for sentence in dropped_experts_note(before, builder.library.manifest):
            note(sentence)
    return builder


def dropped_experts_note(before: Manifest, after: Manifest) -> list[str]:
    """A sentence on experts that were dropped because they came from other settings, if any."""
    dropped = [name for name in before.expert_names if name not in after.expert_names]
    if not dropped:
        return []
    old, new = (
        dict(_flat({**present_keys(manifest.config), "versions": dict(manifest.versions)}))
        for manifest in (before, after)
    )
    keys = sorted(k for k in old.keys() | new.keys() if (old.get(k) or "") != (new.get(k) or ""))
    changes = [f"{key} {old.get(key)!r}, now {new.get(key)!r}" for key in keys]
    why = "; ".join(changes[:_N_CHANGES]) or "their data changed"
    more = f"; and {len(changes) - _N_CHANGES} more" if len(changes) > _N_CHANGES else ""
    return [
        f"{len(dropped)} expert{'s' if len(dropped) > 1 else ''} made otherwise ({why}{more}) will "
        f"be made again where they are needed: {', '.join(dropped)}."
    ]


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, given in value.items():
        has_names = isinstance(given, list) and given and isinstance(given[0], Mapping)
        entry = (
            {str(row.get("name", k)): row for k, row in enumerate(given)} if has_names else given
        )
        if isinstance(entry, Mapping):
            yield from _flat(entry, f"{prefix}{key}.")
        else:
            yield prefix + key, entry


def _with_rollouts(
    library: LibraryFolder, settings: RunSettings, base: Base
) -> tuple[LibraryFolder, tuple[Rollout, ...], RewardScores]:
    """The library with rollouts and rewards, the scored answers, and the rewards."""
    prompts = run_prompts(settings)
    job = RolloutJob(
        prompts,
        settings.rollouts,
        derive_seed(settings.seed, "rollouts"),
        tuple(dict.fromkeys(row.instruction for row in settings.objectives if row.instruction)),
    )
    sampled_by: dict[str, Any] = {
        "base": base.fingerprint,
        "prompts": prompts,
        "settings": settings.rollouts.model_dump(exclude={"num_prompted_generations"}),
        "seed": job.seed,
        "dtype": settings.dtype,
    }
    if n_each := settings.rollouts.num_prompted_generations:
        sampled_by["prompted"] = [job.instructions, n_each]
    sampling_key = hash_value(sampled_by)
    library = library.with_rollouts_begun(key=sampling_key)
    if library.has_rollouts(key=sampling_key):
        answers = read_rollouts(library.rollouts_path, objectives=settings.objective_names)
    else:
        path, bank = library.unfinished_rollouts, AdapterBank(base, {})
        answers = _sampled(base, bank, job, path, title="sample the base")
    for objective in settings.objectives:
        library = add_reward(library, objective, own_answers(answers), seed=settings.seed)
    reward = library_rewards(library)
    rollouts = score_rollouts(answers, reward)
    if not library.has_rollouts(key=sampling_key) or rollouts != answers:
        library = library.with_rollouts(
            key=sampling_key,
            write=lambda path: write_rollouts(path, rollouts, objectives=settings.objective_names),
        )
    return library, tuple(rollouts), reward


def _sampled(
    base: Base, bank: AdapterBank, job: RolloutJob, path: Path, *, title: str
) -> list[Rollout]:
    with progress_of(f"{title}, prompts") as report:
        return sample_answers(
            LocalEngine(base, bank),
            job,
            path,
            as_read=lambda prompt, instruction: format_messages(
                base, with_instruction(messages_of(prompt), instruction)
            ),
            on_progress=report,
        )
