"""Who the soups of the small world are for, and the experts they are blended from.

For every seed one library holds the basis, from which soups are made, and the bespoke experts, each
trained for one user with the same rewards, rollouts, steps and initialisation; bespoke experts
are the ceiling and never part of a soup. Three groups of users share one distribution of
preferences:

- reported: what the study's figures are about;
- development: whatever was chosen, was chosen on them and on training prompts;
- training: their simulated feedback makes the population prior; nobody trains an expert for them.

A preference is a direction over the six objectives whose absolute entries sum to one: half of the
users have one on the simplex (Dirichlet, concentration 0.5), half a signed one, from the sphere.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.build.library import build_library
from palate.build.run_file import RunSettings
from palate.core.seeds import generator_for
from palate.core.simplex import sample_simplex
from palate.library.folder import LibraryFolder
from palate.training.anchors import Anchor, AnchorSettings, objective_anchors
from research.world.objectives import OBJECTIVE_NAMES
from research.world.prompts import train_prompts
from research.world.settings import Annotation, world_run

N_BASIS = 24  # six objectives, nine preferences, nine signed directions
N_USERS = 24
N_DEVELOPMENT = 8
N_TRAINING = 100
N_ROLLOUT_PROMPTS = 240  # the other 48 training prompts are for development
N_FEEDBACK_PROMPTS = 120
USERS_CONCENTRATION = 0.5


def basis_anchors(*, seed: int) -> tuple[Anchor, ...]:
    """Axes first, then preferences and signed directions in turn."""
    n_each = (N_BASIS - len(OBJECTIVE_NAMES)) // 2
    drawn = _tastes(2 * n_each, seed=seed, group="basis", concentration=1.0)
    return objective_anchors(OBJECTIVE_NAMES) + _anchors("basis", drawn)


def reported_users(*, seed: int) -> tuple[Anchor, ...]:
    """The users whose figures are reported; nothing was chosen on them."""
    return _anchors("person", _tastes(N_USERS, seed=seed, group="people"))


def development_users(*, seed: int) -> tuple[Anchor, ...]:
    """The users on whom settings were chosen."""
    return _anchors("development", _tastes(N_DEVELOPMENT, seed=seed, group="development"))


def training_preferences(*, seed: int) -> Float[ndarray, "users objectives"]:
    """Preferences of the users whose feedback makes the population prior."""
    return _tastes(N_TRAINING, seed=seed, group="training")


def development_prompts() -> tuple[str, ...]:
    """Training prompts that no expert was trained on."""
    return train_prompts()[N_ROLLOUT_PROMPTS:]


def feedback_prompts() -> tuple[str, ...]:
    """Prompts that users see answers to; the base answers them afresh."""
    return train_prompts()[:N_FEEDBACK_PROMPTS]


def study_run(folder: Path, anchors: tuple[Anchor, ...], *, seed: int) -> RunSettings:
    """The world's own run with these anchors and fewer prompts; its inputs lie in `folder`."""
    listed = {
        anchor.name: dict(zip(OBJECTIVE_NAMES, anchor.direction, strict=True)) for anchor in anchors
    }
    run = world_run(folder, seed=seed, annotation=Annotation(n_prompts=N_ROLLOUT_PROMPTS))
    return run.model_copy(update={"anchors": AnchorSettings(kind="list", listed=listed)})


def build_study_library(folder: Path, *, seed: int) -> LibraryFolder:
    """The library with basis and bespoke experts; resumes.

    Raises:
        InvalidInputError: the folder holds something else.
        FormatError: it holds a library of another base.
    """
    anchors = basis_anchors(seed=seed) + development_users(seed=seed) + reported_users(seed=seed)
    return build_library(study_run(folder.parent, anchors, seed=seed), out=folder).library


def _tastes(
    n_tastes: int, *, seed: int, group: str, concentration: float = USERS_CONCENTRATION
) -> Float[ndarray, "users objectives"]:
    """A preference, a signed direction, a preference, and so on."""
    generator = generator_for(seed, "soup study", group)
    n_objectives = len(OBJECTIVE_NAMES)
    shares = sample_simplex(
        n_points=n_tastes,
        n_objectives=n_objectives,
        generator=generator,
        concentration=concentration,
    )
    signed = generator.normal(size=(n_tastes, n_objectives))
    signed /= np.abs(signed).sum(axis=1, keepdims=True)
    is_signed = np.arange(n_tastes) % 2 == 1
    return np.where(is_signed[:, None], signed, shares)


def _anchors(stem: str, preferences: Float[ndarray, "users objectives"]) -> tuple[Anchor, ...]:
    return tuple(
        Anchor(f"{stem}-{place:02d}", OBJECTIVE_NAMES, tuple(preference))
        for place, preference in enumerate(preferences.tolist())
    )
