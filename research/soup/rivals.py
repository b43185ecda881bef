"""Baselines of the study: the instruction that a preference comes to, and adapters of mean factors.

Oracles are given the user's preference; learners have the same votes as the soups. `OwnExpert` and
`personalised_library` are methods of the board: they have a library of their own on the same base.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.decision import Decision, Known, Messages
from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import hash_value
from palate.core.plan import member_plan
from palate.core.seeds import generator_for
from palate.engine.bank import AdapterBank
from palate.evaluate.catalogue import BASE
from palate.evaluate.cells import Cells
from palate.evaluate.suite import UserSettings
from palate.library.controller import strengths_for
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.library.manifest import ExpertRecord
from palate.models.adapter import Adapter, Factor, as_factor, as_factors, load_adapter, save_adapter
from palate.soup.merge import Factors, require_same_map
from palate.soup.states import Coefficients
from palate.training.anchors import Anchor
from research.statistics.bespoke import BespokeShare, bespoke_share
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


PERSONALISED, BESPOKE = "personalised-soup", "bespoke"


@dataclass(frozen=True)
class OwnExpert:
    """The method of a library that has an expert for exactly this user's preference."""

    name: str

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The expert's plan.

        Raises:
            InvalidInputError: no expert was made for the user's preference.
        """
        shares = library.preference(known)
        for place, record in enumerate(library.manifest.experts):
            if shares is not None and np.allclose(record.anchor.direction, shares, atol=1e-6):
                plan = member_plan(index=place, n_experts=library.bank.n_experts)
                named = {record.anchor.name: 1.0}
                reason = "The expert made for this user alone."
                return Decision(messages, plan, self.name, named, reason=reason)
        raise InvalidInputError(
            f"There is no expert for the preference {dict(known.preference or {})} alone; give a "
            f"library of them, or leave out the method {self.name!r}."
        )


def personalised_library(library: Library, users: Sequence[UserSettings]) -> Library:
    """Per user one adapter, the mean of A factors and of B factors: Personalized Soups.

    The library of these is on the same base, nowhere on disk, and has no floor.

    Raises:
        InvalidInputError: a user wants an objective that has no expert of its own.
    """
    adapters = [load_adapter(folder) for folder in library.files.expert_folders().values()]
    objectives, merged = library.manifest.objective_names, dict[str, Adapter]()
    anchors: list[Anchor] = []
    for place, user in enumerate(users):
        name, wanted = f"user-{place}", strengths_for(library.manifest, user.preference)
        merged[name] = factor_means(adapters, wanted)
        direction = tuple(user.preference.get(one, 0.0) for one in objectives)
        anchors.append(Anchor(name, objectives, direction))
    keys = [record.key for record in library.manifest.experts]
    key = hash_value([PERSONALISED, keys, [anchor.direction for anchor in anchors]])
    records = tuple(ExpertRecord(anchor, key=key, files={}) for anchor in anchors)
    manifest = replace(library.manifest, experts=records, controller=None)
    files = LibraryFolder(library.files.folder / "derived", manifest)
    return Library(files, library.base, AdapterBank(library.base, merged))


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


def factor_mean(adapters: Sequence[Factors], coefficients: Coefficients) -> Factors:
    """The baseline that sums `A`s and `B`s apart: not the parameter soup.

    For two or more experts it has every `B_j A_k` in it; with equal thirds of random adapters it is
    off by 82 % in norm.

    Raises:
        InvalidCoefficientsError: not one finite coefficient per adapter, or no adapters.
        FormatError: sizes, ranks or scales differ.

    Source:
        Personalized Soups, arXiv 2310.11564, as coded by its authors.
    """
    weighted = require_same_map(adapters, coefficients)
    kinds = {(factors.rank, float(factors.scale)) for factors in adapters}
    if len(kinds) != 1:
        raise FormatError(
            f"The factor mean needs adapters of one rank and scale, but they have {sorted(kinds)}; "
            "use the parameter soup."
        )
    first = adapters[0]
    return Factors(
        A=np.tensordot(weighted, np.stack([factors.A for factors in adapters]), axes=1),
        B=np.tensordot(weighted, np.stack([factors.B for factors in adapters]), axes=1),
        lora_alpha=first.lora_alpha,
        is_rank_stabilised=first.is_rank_stabilised,
    )


def percent_of_bespoke(cells: Cells) -> dict[str, BespokeShare]:
    """Method to its share of the gain of experts of the users' own, where these took part."""
    if BESPOKE not in cells.methods or len(set(cells.users)) < 2:
        return {}
    means = {one: np.array([*cells.by_user(cells.utility(one)).values()]) for one in cells.methods}
    own, base = means[BESPOKE], means[BASE]
    generators = {one: generator_for(0, "bespoke", one) for one in means if own.sum() > base.sum()}
    return {
        one: bespoke_share(means[one], base=base, ceiling=own, generator=generator)
        for one, generator in generators.items()
    }
