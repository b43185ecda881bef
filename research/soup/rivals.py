"""Baselines of the study: the instruction that a preference comes to, and adapters of mean factors.

Oracles are given the user's preference; learners have the same votes as the soups.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxtyping import Float
from numpy import ndarray

from palate.models.adapter import Factor, as_factor, as_factors, load_adapter, save_adapter
from palate.soup.merge import factor_mean
from research.world.objectives import AXES, OBJECTIVE_NAMES, Objective

CLEAR_SHARE = 1 / 3  # an axis counts as wanted if it matters so much as the most wanted one


def wanted_poles(preference: Float[ndarray, " objectives"]) -> list[Objective]:
    """One pole of every axis that matters to the user, what is wanted less netted out."""
    nets = {
        axis: float(
            preference[OBJECTIVE_NAMES.index(one.name)]
            - preference[OBJECTIVE_NAMES.index(other.name)]
        )
        for axis, (one, other) in AXES.items()
    }
    largest = max(abs(net) for net in nets.values())
    return [
        AXES[axis][0] if net > 0 else AXES[axis][1]
        for axis, net in nets.items()
        if abs(net) >= CLEAR_SHARE * largest and net != 0
    ]


def instructions(preferences: Float[ndarray, "users objectives"]) -> list[str]:
    """`[users]`: the preference in words, in the sentences that the base was taught."""
    return [
        " ".join(pole.instruction for pole in wanted_poles(preference))
        for preference in preferences
    ]


def save_factor_means(
    folder: Path,
    preferences: Float[ndarray, "users objectives"],
    *,
    axis_folders: Sequence[Path],
    base_path: str,
) -> dict[str, Path]:
    """Personalized Soups: `A`s and `B`s of the wanted poles' experts averaged apart.

    Args:
        folder: Gets one adapter folder per user; those that are there are kept.
        preferences: `[users, objectives]`.
        axis_folders: Of the axis experts, in the order of the objectives.
        base_path: Of the base.
    """
    adapters = [load_adapter(path) for path in axis_folders]
    found: dict[str, Path] = {}
    for user, preference in enumerate(preferences):
        path = folder / f"user-{user:02d}"
        found[path.name] = path
        if path.is_dir():
            continue
        wanted = [OBJECTIVE_NAMES.index(pole.name) for pole in wanted_poles(preference)]
        shares = [1 / len(wanted)] * len(wanted)
        merged = factor_means([adapters[at] for at in wanted], shares)
        save_adapter(merged, path, base_path=base_path)
    return found


def factor_means(
    adapters: Sequence[Mapping[str, Factor]], shares: Sequence[float]
) -> dict[str, Factor]:
    """Personalized Soups: means of the `A` and of the `B` factors, which no plan expresses.

    It is not the mean of the products `B A`, which a parameter soup is.

    Args:
        adapters: Layer to factors, of one rank; all with the same layers.
        shares: `[adapters]`, on the simplex.

    Source:
        Jang et al. 2023, arXiv 2310.11564, as published: parameters of the adapters are averaged.
    """
    parts = [as_factors(one) for one in adapters]
    return {
        layer: as_factor(factor_mean([one[layer] for one in parts], list(shares)))
        for layer in parts[0]
    }
