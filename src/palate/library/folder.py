"""The library: experts, rewards and rollouts of one base, as a folder.

    library.json      the manifest: finished parts, with the hash of every file
    experts/NAME/     a PEFT adapter folder and its model card
    rewards/NAME/     a reward model and its card
    rollouts.jsonl    the base's scored answers
    controller/       the controller of the mixture, if it was trained

A part is first written as a whole and then entered into the manifest. A part that the manifest does
not name does not exist, and one that it names is compared with its hash before it is used. So a
build may be killed at any moment: nothing half-written is loaded, and the next build resumes.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import hash_bytes, read_versioned, write_folder_atomic, write_versioned
from palate.core.types import BaseRecord
from palate.library.manifest import KIND, SCHEMA_VERSION, ExpertRecord, Files, Manifest, PartRecord
from palate.rewards.functions import RewardFunction
from palate.training.anchors import require_name
from palate.training.save import CARD

MANIFEST = "library.json"
ROLLOUTS = "rollouts.jsonl"
UNFINISHED_ROLLOUTS = "rollouts.unfinished.jsonl"
METHODS_FILE = "methods.json"
CONTROLLER = "controller"

Fill = Callable[[Path], None]  # writes a part's files into the folder it is given


@dataclass(frozen=True)
class LibraryFolder:
    """A library folder and its manifest."""

    folder: Path  # its path
    manifest: Manifest  # the finished parts
    # by objective, Python functions that cannot be imported again
    reward_funcs: Mapping[str, RewardFunction] = field(
        default_factory=dict[str, RewardFunction], compare=False
    )
    is_foreign: bool = False  # from the hub: what it names is not imported and not asked

    @classmethod
    def create(cls, folder: Path, manifest: Manifest) -> "LibraryFolder":
        """The library in `folder`, if it is of this job, or an empty one.

        The manifest has no parts yet.

        Raises:
            FormatError: the folder holds a library of another base or other objectives, or a
                damaged part.
            InvalidInputError: the folder holds other things.
        """
        if not (folder / MANIFEST).is_file():
            is_file = folder.exists() and not folder.is_dir()
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
            if is_file or not all(name.endswith(".tmp") for name in names):  # left by a build
                raise InvalidInputError(
                    f"The folder {str(folder)!r} is not a library and not empty; use another one."
                )
            return cls(folder, manifest)._with()
        library = cls.open(folder)
        earlier = library.manifest
        library.require_base(manifest.base)
        if earlier.objective_names != manifest.objective_names:
            raise FormatError(
                f"The library {str(folder)!r} is for the objectives "
                f"{', '.join(earlier.objective_names)}, but "
                f"{', '.join(manifest.objective_names)} are asked for; use another folder."
            )
        for part in (folder, folder / "experts", folder / "rewards"):
            for path in part.glob(".*.tmp"):  # what an interrupted build was writing
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        is_comparable = earlier.beta == manifest.beta  # experts of another beta are not
        return library._with(
            **{
                **vars(manifest),
                "experts": earlier.experts if is_comparable else (),
                "rewards": earlier.rewards,
                "rollouts": earlier.rollouts,
                "controller": earlier.controller if is_comparable else None,
            }
        )

    @classmethod
    def open(cls, folder: Path) -> "LibraryFolder":
        """The library in `folder`, every finished part compared with its hashes.

        Raises:
            InvalidInputError: there is no library.
            FormatError: it is of another version, or a part is missing or was changed.
        """
        if not (folder / MANIFEST).is_file():
            raise InvalidInputError(
                f"The folder {str(folder)!r} holds no {MANIFEST}; give the folder of a library "
                "made by 'palate build'."
            )
        value = read_versioned(folder / MANIFEST, kind=KIND, version=SCHEMA_VERSION)
        library = cls(folder, Manifest.from_json(value, path=folder / MANIFEST))
        for record in library.manifest.experts:
            _require_files(library.expert_folder(record.anchor.name), record.files)
        for name, part in library.manifest.rewards.items():
            _require_files(library.reward_folder(name), part.files)
        if library.manifest.controller is not None:
            _require_files(library.controller_folder, library.manifest.controller.files)
        return library

    def expert_folder(self, name: str) -> Path:
        """Path of the expert, built or not."""
        return self.folder / "experts" / require_name(name, what="expert")

    def expert_folders(self) -> dict[str, Path]:
        """Name to folder of the finished experts, in bank order."""
        return {name: self.expert_folder(name) for name in self.manifest.expert_names}

    def reward_folder(self, objective: str) -> Path:
        """Path of the objective's reward, built or not."""
        return self.folder / "rewards" / require_name(objective, what="objective")

    @property
    def controller_folder(self) -> Path:
        """Path of the controller, built or not."""
        return self.folder / CONTROLLER

    @property
    def rollouts_path(self) -> Path:
        """The finished rollouts; FormatError where there are none, or the file was changed."""
        if not self.has_rollouts(key=None):
            raise FormatError(f"The library {str(self.folder)!r} has no rollouts; build it again.")
        part = self.manifest.rollouts
        _require_files(self.folder, part.files if part is not None else {})
        return self.folder / ROLLOUTS

    def has_rollouts(self, *, key: str | None) -> bool:
        """Whether there are finished rollouts, of this key unless it is `None`."""
        part = self.manifest.rollouts
        return part is not None and bool(part.files) and key in (None, part.key)

    def has_reward(self, objective: str, *, key: str) -> bool:
        """Whether there is a finished reward of this key."""
        part = self.manifest.rewards.get(objective)
        return part is not None and part.key == key

    def has_expert(self, name: str, *, key: str) -> bool:
        """Whether there is a finished expert of this key."""
        return any((r.anchor.name, r.key) == (name, key) for r in self.manifest.experts)

    def require_base(self, base: BaseRecord) -> None:
        """Return when the base is the library's; FormatError, which names both, where it is not."""
        own = self.manifest.base
        is_same_text = own.text_fingerprint in ("", base.text_fingerprint)
        if own.fingerprint == base.fingerprint and not is_same_text:
            raise FormatError(
                f"The library {str(self.folder)!r} was built when the base {base.path!r} had "
                "another tokenizer, chat template or end tokens; put its files back as they were."
            )
        if own.fingerprint != base.fingerprint:
            raise FormatError(
                f"The library {str(self.folder)!r} belongs to the base {own.path!r} (hash "
                f"{own.fingerprint[:12]}), but the base {base.path!r} has hash "
                f"{base.fingerprint[:12]}; use the base it was built on."
            )

    def with_expert(self, record: ExpertRecord, fill: Fill) -> "LibraryFolder":
        """The library with the expert in it, in place of one of the same name.

        `fill` writes the PEFT folder, with its card; the record's `files` are set here.
        """
        name = record.anchor.name
        others = tuple(r for r in self.manifest.experts if r.anchor.name != name)
        library = self if len(others) == len(self.manifest.experts) else self._with(experts=others)
        write_folder_atomic(self.expert_folder(name), fill)
        record = replace(record, files=hash_folder(self.expert_folder(name)))
        return library._with(experts=(*others, record))

    def with_experts_of(self, names: tuple[str, ...]) -> "LibraryFolder":
        """The library with only these experts, in this order; the others' folders are removed."""
        experts = {record.anchor.name: record for record in self.manifest.experts}
        library = self._with(experts=tuple(experts[name] for name in names if name in experts))
        for name in experts.keys() - set(names):
            shutil.rmtree(self.expert_folder(name), ignore_errors=True)
        return library

    def without_expert(self, name: str) -> "LibraryFolder":
        """The library without the expert, whose folder stays: others may still read it."""
        left = tuple(r for r in self.manifest.experts if r.anchor.name != name)
        return self._with(experts=left)

    def with_reward(self, objective: str, fill: Fill, *, key: str) -> "LibraryFolder":
        """The library with the objective's reward in it, and without what the former one judged."""
        others = {name: part for name, part in self.manifest.rewards.items() if name != objective}
        library = self._with(rewards=others)
        (self.folder / METHODS_FILE).unlink(missing_ok=True)
        write_folder_atomic(library.reward_folder(objective), fill)
        files = hash_folder(library.reward_folder(objective))
        rewards = {**others, objective: PartRecord(key, files)}
        ordered = {name: rewards[name] for name in self.manifest.objective_names if name in rewards}
        return library._with(rewards=ordered)

    def with_controller(self, fill: Fill, *, key: str) -> "LibraryFolder":
        """The library with a new controller in it; `key` is the hash of its experts."""
        library = self._with(controller=None)
        write_folder_atomic(library.controller_folder, fill)
        return library._with(controller=PartRecord(key, hash_folder(library.controller_folder)))

    def with_rollouts_begun(self, *, key: str) -> "LibraryFolder":
        """The library ready to sample the rollouts of this key; others are removed."""
        part = self.manifest.rollouts
        if part is not None and part.key == key:
            return self
        library = self._with(rollouts=None)
        for path in (self.unfinished_rollouts, self.folder / ROLLOUTS):
            path.unlink(missing_ok=True)
        return library._with(rollouts=PartRecord(key))

    @property
    def unfinished_rollouts(self) -> Path:
        """The file that sampling appends to, without rewards."""
        return self.folder / UNFINISHED_ROLLOUTS

    def with_rollouts(self, *, key: str, write: Fill) -> "LibraryFolder":
        """The library with its rollouts; `write` makes the file at the path it is given."""
        library, path = self, self.folder / ROLLOUTS
        if self.has_rollouts(key=key):  # scored anew: a build that was killed finds the answers
            shutil.copy(path, self.unfinished_rollouts)
            library = self._with(rollouts=PartRecord(key))
        write(path)
        files = {ROLLOUTS: hash_bytes(path.read_bytes())}
        library = library._with(rollouts=PartRecord(key, files))
        self.unfinished_rollouts.unlink(missing_ok=True)
        return library

    def _with(self, **parts: Any) -> "LibraryFolder":
        """The library with these fields of the manifest, written."""
        library = replace(self, manifest=replace(self.manifest, **parts))
        write_versioned(
            self.folder / MANIFEST,
            kind=KIND,
            version=SCHEMA_VERSION,
            content=library.manifest.to_json(),
        )
        return library


def hash_folder(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in the folder, but for the card, which users may edit."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hash_bytes(path.read_bytes())
        for path in files
        if path.name != CARD
    }


def _require_files(folder: Path, files: Files) -> None:
    for name, digest in files.items():
        path = folder / name
        if not path.is_file() or hash_bytes(path.read_bytes()) != digest:
            state = "was changed" if path.is_file() else "is missing"
            raise FormatError(
                f"The file {str(path)!r} {state} since it was entered in {MANIFEST}; remove the "
                "library and build it again."
            )
