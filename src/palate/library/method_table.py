"""`methods.json`: what each method is worth over a grid of preferences, measured at build time.

For a method m and a preference w of the grid the gain is `g_m(w) = w . (R_m(w) - R_base)`: mean
rewards of the method's answers for w less the base's, on prompts that no expert was trained on,
judged by rewards that trained no expert (`palate.library.rewards`). Between grid points the gain is
the barycentric mean of the cell's vertices and the standard error the largest of theirs.

What it does not say: the utility is in the units of these rewards, a user may see it otherwise;
and it was measured for stated preferences, not for learned beliefs.

Source: methods beyond.md, section 4.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from palate.core.errors import FormatError
from palate.core.files import hash_value, read_versioned, reading, write_versioned
from palate.core.simplex import lattice
from palate.core.types import Interval
from palate.library.folder import METHODS_FILE, LibraryFolder
from palate.library.manifest import Manifest, experts_key
from palate.library.safety_floor import Floor
from palate.portfolio.grid import kuhn_cell

KIND, VERSION = "palate-methods", 1
CONFIDENCE = 0.95
ARRAYS = ("gains", "standard_errors", "rewards")


@dataclass(frozen=True, eq=False)
class MethodRow:
    """One method, with a number of candidates, over the grid."""

    method: str
    n_candidates: int  # of best of n; 1 samples one answer
    n_passes: float  # of the base per sampled token, candidates included; mean over the grid
    gains: Float[np.ndarray, " points"]  # utility less the base's; NaN where it was not measured
    standard_errors: Float[np.ndarray, " points"]  # of the gains, prompts resampled
    rewards: Float[np.ndarray, "points objectives"]  # means less the base's
    part: str = ""  # hash of the part of the library that only this method reads


@dataclass(frozen=True, eq=False)
class Prediction:
    """A row with its predicted gain over the base, for a preference or the draws of a belief."""

    row: MethodRow
    utility: Interval


@dataclass(frozen=True, eq=False)
class MethodTable:
    """The measured methods of a library."""

    objectives: tuple[str, ...]  # names, in order
    denominator: int  # of the grid, a lattice of the simplex
    n_prompts: int  # calibration prompts behind every number
    rows: tuple[MethodRow, ...]  # one per method and number of candidates
    seed: int = 0  # of the answers
    self_judged: tuple[str, ...] = ()  # objectives that are judged by the reward of training
    key: str = ""  # hash of the library that was measured (`table_key`)
    settings_key: str = ""  # hash of prompts, grid, length and seed

    @property
    def points(self) -> Float[np.ndarray, "points objectives"]:
        """The grid."""
        return lattice(n_objectives=len(self.objectives), denominator=self.denominator)

    def row(self, method: str, *, n_candidates: int = 1) -> MethodRow | None:
        """The row of a method, or `None` where it was not measured."""
        for row in self.rows:
            if (row.method, row.n_candidates) == (method, n_candidates):
                return row
        return None

    def predictions(
        self, draws: Float[np.ndarray, "draws objectives"], *, max_passes: float
    ) -> list[Prediction]:
        """Every affordable row with its expected gain, the best lower bound first.

        Draws are `[draws, objectives]`: one stated preference, or draws from a belief.
        """
        affordable = [row for row in self.rows if row.n_passes <= max_passes + 1e-9]
        rows = [(row, self.expected(row, draws)) for row in affordable]
        known = [Prediction(row, utility) for row, utility in rows if utility is not None]
        return sorted(known, key=lambda one: (-one.utility.low, one.row.n_passes))

    def expected(
        self, row: MethodRow, draws: Float[np.ndarray, "draws objectives"]
    ) -> Interval | None:
        """Mean gain over draws of a preference, with the mean of their standard errors."""
        gains, errors = np.empty(len(draws)), np.empty(len(draws))
        places = {tuple(p): k for k, p in enumerate(np.rint(self.points * self.denominator))}
        for place, draw in enumerate(draws):
            cell = kuhn_cell(draw, denominator=self.denominator)
            is_used = cell.barycentric > 1e-9
            corners = np.rint(cell.vertices[is_used] * self.denominator)
            at = [places[tuple(corner)] for corner in corners]
            gains[place] = cell.barycentric[is_used] @ row.gains[at]
            errors[place] = row.standard_errors[at].max()
        if not np.all(np.isfinite(gains)):
            return None
        half = float(stdtrit(max(self.n_prompts - 1, 1), 0.5 + CONFIDENCE / 2) * errors.mean())
        mean = float(gains.mean())
        return Interval(mean, mean - half, mean + half, self.n_prompts, self.n_prompts)

    def minimax(
        self, *, max_passes: float, methods: Collection[str] | None = None
    ) -> tuple[MethodRow, int, float] | None:
        """The action of least largest regret over the grid, for a user of whom nothing is known.

        An action is a method with one preference of the grid in place of the unknown one. Its
        regret for a user with preference w is the best measured gain at w less `w @` the action's
        rewards. Returns row, grid point and largest regret, reward units, if any is affordable.
        """
        rows = [row for row in self.rows if row.n_passes <= max_passes + 1e-9]
        rows = [row for row in rows if methods is None or row.method in methods]
        if not rows:
            return None
        gains = np.array([row.gains for row in rows])
        best = np.nanmax(gains, axis=0)
        actions = np.concatenate([row.rewards for row in rows])  # [rows * points, objectives]
        regrets = np.max(best[None, :] - actions @ self.points.T, axis=1)
        if not np.any(np.isfinite(regrets)):
            return None
        place = int(np.nanargmin(regrets))
        n_points = len(self.points)
        return rows[place // n_points], place % n_points, float(regrets[place])

    def to_json(self) -> dict[str, Any]:
        """The table as plain data; NaN becomes null."""
        rows = [
            {**vars(row), **{name: _listed(vars(row)[name]) for name in ARRAYS}}
            for row in self.rows
        ]
        return {**vars(self), "preferences": self.points.round(12).tolist(), "rows": rows}


def save_method_table(files: LibraryFolder, table: MethodTable) -> Path:
    """Write `methods.json` into the library, atomically; gives its path."""
    path = files.folder / METHODS_FILE
    write_versioned(path, kind=KIND, version=VERSION, content=table.to_json())
    return path


def table_key(manifest: Manifest, strength: float, floor: Floor | None) -> str:
    """Hash of the parts of a library that all methods use: experts, strength, floor, sentences."""
    safety = None if floor is None else [floor.name, floor.coefficient]
    sentences = [[one.name, one.instruction] for one in manifest.objectives]
    return hash_value([experts_key(manifest), strength, safety, sentences])


def load_method_table(
    files: LibraryFolder, *, key: str, part_key: Callable[[str], str]
) -> MethodTable | None:
    """The library's `methods.json`; `None` where there is none or the library has changed since.

    Rows of methods whose own part has changed are left out. The key is that of the library as it is
    now (`table_key`), and `part_key` gives those of methods' own parts.

    Raises:
        InvalidInputError: the file is not JSON.
        FormatError: it is of another kind or version, or lacks or garbles a part.
    """
    path = files.folder / METHODS_FILE
    if not path.is_file():
        return None
    content = read_versioned(path, kind=KIND, version=VERSION)
    with reading(path, remedy="remove it and measure the methods again with 'palate build'"):
        if content["key"] != key:
            return None
        objectives, denominator = files.manifest.objective_names, int(content["denominator"])
        if tuple(content["objectives"]) != objectives or denominator < 1:
            raise FormatError("the objectives or their grid are others.")
        n_points = comb(denominator + len(objectives) - 1, denominator)
        rows = [_row(row, shape=(n_points, len(objectives))) for row in content["rows"]]
        return MethodTable(
            objectives=objectives,
            denominator=denominator,
            n_prompts=int(content["n_prompts"]),
            rows=tuple(row for row in rows if row.part == part_key(row.method)),
            seed=int(content["seed"]),
            self_judged=tuple(map(str, content["self_judged"])),
            key=key,
            settings_key=str(content["settings_key"]),
        )


def _listed(values: Float[np.ndarray, "..."]) -> list[Any]:
    plain = values.astype(object)
    plain[~np.isfinite(values)] = None
    return plain.tolist()


def _row(row: dict[str, Any], *, shape: tuple[int, int]) -> MethodRow:
    arrays = [np.array(row[name], dtype=np.float64) for name in ARRAYS]  # null becomes NaN
    n_candidates, n_passes = int(row["n_candidates"]), float(row["n_passes"])
    shapes = [array.shape for array in arrays]
    is_whole = shapes == [shape[:1], shape[:1], shape] and min(n_candidates, n_passes) > 0
    if not is_whole or np.any(arrays[1] < 0):
        raise FormatError(f"{row['method']} has a number below 0, or arrays of shapes {shapes}.")
    return MethodRow(str(row["method"]), n_candidates, n_passes, *arrays, part=str(row["part"]))
