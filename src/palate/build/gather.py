"""Experts that independent jobs trained on copies of a library, gathered into one library.

An expert is a function of base, rollouts, rewards, anchor and settings, and its key is the hash of
them: with equal versions on processors of one kind the gathered library is that of one build.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from palate.build.measure import measure_library
from palate.build.run_file import stored_run
from palate.core.errors import FormatError
from palate.library.folder import LibraryFolder
from palate.training.anchors import make_anchors


def gather_experts(folder: Path, others: Sequence[Path]) -> list[tuple[str, Path]]:
    """Copy every expert that the library lacks; returns names and the folders they came from.

    Raises:
        InvalidInputError: a folder holds no library.
        FormatError: a part is damaged, or a library is of another base, other objectives or
            rollouts, or both have another expert of one name.
    """
    library = LibraryFolder.open(folder)
    gathered: list[tuple[str, Path]] = []
    for path in others:
        other = LibraryFolder.open(path)
        _require_same(library, other)
        for record in other.manifest.experts:
            name = record.anchor.name
            if library.has_expert(name, key=record.key):
                continue
            if name in library.manifest.expert_names:
                raise FormatError(
                    f"The expert {name!r} of {str(path)!r} was made with other settings than the "
                    f"one in {str(folder)!r}; remove one of them."
                )
            library = library.with_expert(record, partial(_copy, other.expert_folder(name)))
            gathered.append((name, path))
    settings = stored_run(library.manifest.config)
    anchors = make_anchors(
        settings.anchors, objectives=settings.objective_names, seed=settings.seed
    )
    names = dict.fromkeys([*(anchor.name for anchor in anchors), *library.manifest.expert_names])
    library.with_experts_of(tuple(names))  # in the order of one build
    measure_library(settings, out=folder)
    return gathered


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)


def _require_same(library: LibraryFolder, other: LibraryFolder) -> None:
    library.require_base(other.manifest.base)
    mine, theirs = library.manifest, other.manifest
    same = {
        "objectives": mine.objective_names == theirs.objective_names,
        "rollouts": mine.rollouts == theirs.rollouts,
        "rewards": mine.rewards == theirs.rewards,
        "beta": mine.beta == theirs.beta,
    }
    different = [name for name, holds in same.items() if not holds]
    if different:
        raise FormatError(
            f"The library {str(other.folder)!r} has other {different[0]} than "
            f"{str(library.folder)!r}; train on copies of one prepared library."
        )
