"""Merge a user's soup into one adapter for peft, vLLM and LoRAX."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from palate.core.errors import InvalidInputError
from palate.core.plan import coefficients_from_mapping
from palate.library.folder import LibraryFolder
from palate.models.adapter import as_factor, as_factors, load_adapter, save_adapter
from palate.soup.merge import compress, merge_modules


@dataclass(frozen=True)
class Merged:
    """A merged adapter on disk."""

    folder: Path
    rank: int  # largest of any layer
    n_layers: int  # that it changes
    relative_error: float  # largest of a layer after compression; zero without


def merge_soup(
    folder: Path, named: Mapping[str, float], *, out: Path, rank: int | None = None
) -> Merged:
    """The parameter soup of a library's experts as one PEFT adapter.

    The sum is exact: factors are concatenated, `[c_1 s_1 B_1 | ...] [A_1; ...]`, for any signs,
    ranks and scales. A rank compresses every layer to the closest matrix of that rank. Experts
    that are not named have coefficient zero.

    Raises:
        InvalidInputError: `out` exists, the rank is below one, or there is no library.
        InvalidCoefficientsError: an expert is unknown, or all coefficients are zero.
    """
    if out.exists():
        raise InvalidInputError(f"The folder {str(out)!r} exists; give a new one.")
    library = LibraryFolder.open(folder)
    coefficients = coefficients_from_mapping(named, experts=library.manifest.expert_names)
    if not any(coefficients):
        raise InvalidInputError(
            "All coefficients are zero: that is the base, there is nothing to merge."
        )
    adapters = [as_factors(load_adapter(path)) for path in library.expert_folders().values()]
    merged = merge_modules(adapters, list(coefficients))
    error = 0.0
    if rank is not None:
        small = {
            name: compress(f, rank=min(rank, *f.A.shape, *f.B.shape)) for name, f in merged.items()
        }
        error = max(part.relative_error for part in small.values())
        merged = {name: part.factors for name, part in small.items()}
    save_adapter(
        {name: as_factor(factors) for name, factors in merged.items()},
        out,
        base_path=library.manifest.base.path,
    )
    return Merged(out, max(f.rank for f in merged.values()), len(merged), error)
