"""Write a library's `soup.json`: the basis that users' coefficients are learned in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.build.soup_feedback import Observation, Shown, read_feedback, shown_answers
from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.core.progress import progress_of
from palate.core.settings import load_settings
from palate.library.features import log_ratios, scored_text
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.library.manifest import experts_key
from palate.library.soup import (
    SOUP,
    calibration_answers,
    has_own_basis,
    measured_settings,
    plain_basis,
)
from palate.models.load import Base
from palate.preferences.population import fit_population
from palate.soup.basis_file import SoupBasis, load_basis, save_basis
from palate.soup.learning import population_prior
from palate.soup.settings import SoupSettings
from palate.soup.spectral import measure_spectrum


@dataclass(frozen=True, eq=False)
class SoupWritten:
    """The written file."""

    path: Path  # the file
    basis: SoupBasis  # its content
    order: tuple[str, ...]  # experts, each adding most to the span of those before


def write_soup(
    target: Path | Library,
    *,
    population: Path | None = None,
    floor: Mapping[str, float] | None = None,
    overrides: Sequence[str] = (),
    base: str | None = None,
) -> SoupWritten:
    """Measure the library's experts as a basis and write `soup.json`.

    A strength that was measured for the same experts stays. `population` is feedback of many users
    (`user` in every row), for the prior and the gain; `floor` a safety expert with the coefficient
    that feedback cannot lower. Without overrides, `key=value` of `SoupSettings`, the trust region
    follows from the experts (`palate.soup.settings.settings_for`).

    Raises:
        InvalidInputError: there is no library, it has no experts, or the population's file is
            wrong.
        InvalidCoefficientsError: the floor names an unknown expert, or more than one.
        FormatError: the library has no rollouts, or is damaged.
    """
    opened = target if isinstance(target, Library) else Library.load(target, base=base)
    manifest, folder = opened.manifest, opened.files.folder
    if not manifest.expert_names:
        raise InvalidInputError(f"The library {str(folder)!r} has no experts; build some.")
    if floor is not None and len(floor) != 1:
        raise InvalidCoefficientsError(
            f"The safety floor {dict(floor)} names {len(floor)} experts; name one."
        )
    answers = calibration_answers(opened.files, opened.base)
    with progress_of("score calibration answers") as report:
        ratios = log_ratios(opened.base, opened.files.expert_folders(), answers, on_step=report)
    spectrum = measure_spectrum(opened.states, ratios, beta=manifest.beta)
    measured = measured_settings(manifest, opened.states, has_population=population is not None)
    defaults = [f"{key}={value!r}" for key, value in measured.items()]
    basis = replace(
        plain_basis(manifest, opened.states),
        feature_means=spectrum.feature_means,
        feature_scales=spectrum.feature_scales,
        effective_rank={str(share): n for share, n in spectrum.effective_rank.items()},
        floor=None if floor is None else next(iter(floor.items())),
        settings=load_settings(SoupSettings, overrides=(*defaults, *overrides)),
        strength=load_basis(folder / SOUP).strength if has_own_basis(opened.files) else None,
        experts_key=experts_key(manifest),
    )
    if population is not None:
        basis = _with_population(basis, opened, read_feedback(population), calibration=ratios)
    save_basis(folder / SOUP, basis)
    for name in ("basis", "soups", "strength", "floor", "controller", "engine", "method_table"):
        opened.__dict__.pop(name, None)  # read anew from the file
    return SoupWritten(folder / SOUP, basis, tuple(basis.experts[k] for k in spectrum.order))


def stored_floor(files: LibraryFolder) -> dict[str, float] | None:
    """The floor of the present `soup.json`; InvalidCoefficientsError where its expert is gone."""
    path = files.folder / SOUP
    floor = load_basis(path).floor if path.is_file() else None
    if floor is None:
        return None
    if floor[0] not in files.manifest.expert_names:
        raise InvalidCoefficientsError(
            f"The safety floor of {str(path)!r} is on the expert {floor[0]!r}, which the library "
            "does not have any more; remove the file, or run 'palate soup basis' with a floor on "
            f"one of {', '.join(files.manifest.expert_names)}."
        )
    return dict([floor])


def shown_log_ratios(
    base: Base, library: LibraryFolder, shown: Sequence[Shown]
) -> Float[ndarray, "answers experts"]:
    """`[answers, experts]`: from the feedback file, or scored by the experts.

    Raises:
        InvalidCoefficientsError: an answer has log-ratios of an unknown expert, or of some only.
    """
    names = library.manifest.expert_names
    ratios = np.full((len(shown), len(names)), np.nan)
    for place, answer in enumerate(shown):
        if answer.log_ratios:
            named = dict(answer.log_ratios)
            wrong = [f"the unknown expert {name!r}" for name in named if name not in names]
            wrong += [f"nothing of {name!r}" for name in names if name not in named]
            if wrong:
                raise InvalidCoefficientsError(
                    f"The log-ratios of an answer name {wrong[0]}; the experts are "
                    f"{', '.join(names)}."
                )
            ratios[place] = [named[name] for name in names]
    missing = [place for place, answer in enumerate(shown) if not answer.log_ratios]
    if missing:
        items = [scored_text(base, shown[at].prompt, shown[at].text) for at in missing]
        with progress_of("score answers, experts") as report:
            ratios[missing] = log_ratios(base, library.expert_folders(), items, on_step=report)
    return ratios


def _with_population(
    basis: SoupBasis,
    opened: Library,
    observations: Sequence[Observation],
    *,
    calibration: Float[ndarray, "answers experts"],
) -> SoupBasis:
    """The basis with the prior and gain of all users' comparisons; other kinds are left out."""
    pairs = [item for item in observations if item.kind == "comparison"]
    shown = shown_answers(pairs)
    place_of = {answer: place for place, answer in enumerate(shown)}
    features = basis.features(shown_log_ratios(opened.base, opened.files, shown))
    by_user: dict[str, list[tuple[ndarray, float]]] = {}
    for item in pairs:
        if item.second is not None:
            difference = features[place_of[item.first]] - features[place_of[item.second]]
            by_user.setdefault(item.user, []).append((difference, item.label))
    longest = max((len(rows) for rows in by_user.values()), default=0)
    differences = np.zeros((len(by_user), longest, len(basis.experts)))
    labels = np.full((len(by_user), longest), 0.5)
    discounts = np.zeros((len(by_user), longest))
    for user, rows in enumerate(by_user.values()):
        differences[user, : len(rows)] = [difference for difference, _ in rows]
        labels[user, : len(rows)] = [label for _, label in rows]
        discounts[user, : len(rows)] = 1.0
    prior = population_prior(
        fit_population(differences, labels, discounts=discounts),
        calibration=basis.features(calibration),
        scales=basis.feature_scales,
    )
    return replace(basis, prior=prior)
