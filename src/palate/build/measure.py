"""The last phase of a build: basis, strength, and the measured gain of every method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.build.calibration import MEASURED, Entry, calibrate_methods
from palate.build.run_file import RunSettings, calibration_prompts, stored_run
from palate.build.soup_fit import stored_floor, write_soup
from palate.build.strength import measure_strength, set_strength, strength_key
from palate.core.errors import InvalidInputError
from palate.core.progress import note
from palate.core.protocols import SamplingParams
from palate.core.seeds import derive_seed
from palate.library.library import Library
from palate.library.method_table import MethodTable
from palate.library.soup import has_own_basis
from palate.rewards.functions import RewardFunction
from palate.soup.basis_file import STATED


@dataclass(frozen=True, eq=False)
class MeasuredLibrary:
    """What a library measured of itself."""

    strength: float  # strength of soups of stated preferences
    table: MethodTable | None  # gains of every method, or `None` where there were too few prompts

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        rows = [] if self.table is None else self.table.rows
        return {
            "strength": self.strength,
            "methods": [
                {
                    "method": row.method,
                    "n_candidates": row.n_candidates,
                    "n_passes": row.n_passes,
                    "mean_gain": float(row.gains.mean()),
                }
                for row in rows
            ],
        }


def measure_library(
    settings: RunSettings, *, out: Path, reward_funcs: Mapping[str, RewardFunction] | None = None
) -> MeasuredLibrary | None:
    """Write `soup.json` with its strength and `methods.json`; parts that are there stay.

    It is `None` for a library without experts.

    Raises:
        FormatError: a part of the library does not fit the others.
    """
    library = Library.load(
        out, device=settings.device, dtype=settings.dtype, reward_funcs=reward_funcs
    )
    if not library.manifest.experts:
        return None
    if not has_own_basis(library.files):
        write_soup(library, floor=stored_floor(library.files))
    stated, prompts = settings.calibration.strength, calibration_prompts(settings)
    had, source = library.basis.strength_from, "" if stated is None else STATED
    if STATED in (had, source) and (library.basis.strength, had) != (stated, source):
        set_strength(library, stated, source=source)
    if not prompts:
        note("The methods were not measured: too few prompts; give calibration.prompts a file.")
        return MeasuredLibrary(library.strength, None)
    seed = derive_seed(settings.seed, "strength")
    n_tokens = settings.rollouts.max_completion_length
    sampling = SamplingParams(temperature=settings.calibration.temperature, max_tokens=n_tokens)
    key = strength_key(library, prompts, sampling, seed=seed)
    if library.basis.strength is None or library.basis.strength_from not in ("", STATED, key):
        measure_strength(library, prompts, sampling=sampling, seed=seed)
    return MeasuredLibrary(library.strength, _calibrated(library, prompts, settings, MEASURED))


def measure_again(before: Library, *, entries: Sequence[Entry]) -> MethodTable | None:
    """Measure some methods anew, such as one that a library has just learned; the others stay.

    Nothing is done for a library whose methods were never measured. The library was opened before
    it learned; its folder is read anew. Entries are methods with their numbers of candidates.
    """
    library = before.reloaded()
    if library.method_table is None:
        return None
    try:
        settings = stored_run(library.manifest.config)
        prompts = calibration_prompts(settings)
    except InvalidInputError as error:
        note(f"The methods were not measured again: {error}")
        return None
    return _calibrated(library, prompts, settings, entries) if prompts else None


def _calibrated(
    library: Library, prompts: Sequence[str], settings: RunSettings, entries: Sequence[Entry]
) -> MethodTable:
    return calibrate_methods(
        library,
        prompts,
        settings=settings.calibration,
        max_tokens=settings.rollouts.max_completion_length,
        entries=entries,
        seed=derive_seed(settings.seed, "calibration"),
    )
