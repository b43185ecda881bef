"""Baselines of the study: what else could answer a person, as plans over the six axis experts.

Oracles are told the person's taste; learners have the same votes as the soups.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from palate.core.plan import Plan, output_soup_plan, parameter_soup_plan
from palate.models.adapter import Factor, load_adapter, save_adapter
from palate.soup.merge import Factors, factor_mean
from palate.world.objectives import AXES, OBJECTIVE_NAMES, Objective

CLEAR_SHARE = 1 / 3  # an axis counts as wanted if it matters so much as the most wanted one


def wanted_poles(taste: Float[ndarray, " objectives"]) -> list[Objective]:
    """One pole of every axis that matters to the person, what is wanted less netted out."""
    nets = {
        axis: float(
            taste[OBJECTIVE_NAMES.index(one.name)] - taste[OBJECTIVE_NAMES.index(other.name)]
        )
        for axis, (one, other) in AXES.items()
    }
    largest = max(abs(net) for net in nets.values())
    return [
        AXES[axis][0] if net > 0 else AXES[axis][1]
        for axis, net in nets.items()
        if abs(net) >= CLEAR_SHARE * largest and net != 0
    ]


def instructions(tastes: Float[ndarray, "people objectives"]) -> list[str]:
    """`[people]`: the preference in words, as the base was taught to read wishes."""
    return [" ".join(pole.instruction for pole in wanted_poles(taste)) for taste in tastes]


def preference_plans(
    tastes: Float[ndarray, "people objectives"], *, strength: float = 1.0
) -> list[Plan]:
    """Rewarded soups: the taste's entries as coefficients of the axis experts' parameters."""
    return [parameter_soup_plan((strength * taste).tolist()) for taste in tastes]


def decoding_plans(tastes: Float[ndarray, "people objectives"]) -> list[Plan]:
    """MOD: the taste's entries as coefficients of the axis experts' outputs.

    On the simplex this is MOD; for signed tastes the reference takes up the rest.
    """
    return [output_soup_plan(taste.tolist()) for taste in tastes]


def save_factor_means(
    folder: Path,
    tastes: Float[ndarray, "people objectives"],
    *,
    axis_folders: Sequence[Path],
    base_path: str,
) -> dict[str, Path]:
    """Personalized Soups: `A`s and `B`s of the wanted poles' experts averaged apart.

    Args:
        folder: Gets one adapter folder per person; those that are there are kept.
        tastes: `[people, objectives]`.
        axis_folders: Of the axis experts, in the order of the objectives.
        base_path: Of the base.
    """
    adapters = [load_adapter(path) for path in axis_folders]
    found: dict[str, Path] = {}
    for person, taste in enumerate(tastes):
        path = folder / f"person-{person:02d}"
        found[path.name] = path
        if path.is_dir():
            continue
        wanted = [OBJECTIVE_NAMES.index(pole.name) for pole in wanted_poles(taste)]
        shares = np.full(len(wanted), 1 / len(wanted))
        merged: dict[str, Factor] = {}
        for layer in adapters[wanted[0]]:
            factors = factor_mean([_as_factors(adapters[at][layer]) for at in wanted], shares)
            merged[layer] = Factor(
                torch.from_numpy(factors.A).float(),
                torch.from_numpy(factors.B).float(),
                factors.scale,
            )
        save_adapter(merged, path, base_path=base_path)
    return found


def _as_factors(factor: Factor) -> Factors:
    down, up = factor.down.double().numpy(), factor.up.double().numpy()
    return Factors(down, up, lora_alpha=factor.scale * factor.rank)
