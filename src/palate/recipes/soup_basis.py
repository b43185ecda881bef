"""Write a library's `soup.json`: the basis that people's coefficients are learned in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import FormatError, InvalidCoefficientsError, InvalidInputError
from palate.core.seeds import generator_for
from palate.core.settings import load_settings
from palate.experts.library import Library
from palate.experts.manifest import Manifest
from palate.experts.rollouts import read_rollouts
from palate.models.load import Base
from palate.models.logprobs import Scored
from palate.people.population import fit_population
from palate.recipes.opened import Opened, open_library
from palate.recipes.progress import progress_of
from palate.recipes.soup_features import log_ratios, sample_states, scored_text
from palate.recipes.soup_feedback import Said, Shown, read_feedback, shown_answers
from palate.recipes.ways import anchors
from palate.soup.basis import effective_rank, select_experts, tilt_matrix
from palate.soup.basis_file import SoupBasis, load_basis, save_basis
from palate.soup.learning import feature_scales, plain_prior, population_prior
from palate.soup.normalised import States
from palate.soup.settings import SoupSettings, settings_for
from palate.soup.trust import expert_kls

SOUP = "soup.json"
N_CALIBRATION = 256  # rollouts that features are scaled on
N_STATES = 300
LEAST_KL = 1e-6  # nats per token, of experts that do nothing


@dataclass(frozen=True, eq=False)
class SoupWritten:
    """What was written.

    Attributes:
        path: The file.
        basis: Its content.
        order: Experts in the order in which they add most to what the others span.
    """

    path: Path
    basis: SoupBasis
    order: tuple[str, ...]


def write_soup(
    folder: Path,
    *,
    population: Path | None = None,
    floor: Mapping[str, float] | None = None,
    overrides: Sequence[str] = (),
    base: str | None = None,
) -> SoupWritten:
    """Measure the library's experts as a basis and write `soup.json`.

    Args:
        folder: A library with rollouts.
        population: Feedback of many people (`person` in every row), for the prior and the gain.
        floor: One safety expert with the coefficient that feedback cannot lower.
        overrides: `key=value` of `SoupSettings`; otherwise the trust region follows from the
            experts (`palate.soup.settings.settings_for`).
        base: Where the base is now, if it has moved.

    Raises:
        InvalidInputError: there is no library, it has no experts, or the population's file is
            wrong.
        InvalidCoefficientsError: the floor names an unknown expert, or more than one.
        FormatError: the library has no rollouts, or is damaged.
    """
    opened = open_library(folder, base=base)
    manifest = opened.library.manifest
    if not manifest.expert_names:
        raise InvalidInputError(f"The library {str(folder)!r} has no experts; build some.")
    if floor is not None and len(floor) != 1:
        raise InvalidCoefficientsError(
            f"The safety floor {dict(floor)} names {len(floor)} experts; name one."
        )
    answers = calibration_answers(opened)
    with progress_of("read calibration answers, experts") as report:
        ratios = log_ratios(opened.base, opened.library.expert_folders(), answers, on_expert=report)
    means, scales = feature_scales(ratios, beta=manifest.beta)
    states = calibration_states(opened)
    matrix = tilt_matrix(states.reference, np.moveaxis(states.tilts, -1, 0))
    rank = effective_rank(matrix)
    measured = measured_settings(manifest, states, has_population=population is not None)
    defaults = [f"{key}={value!r}" for key, value in measured.items()]
    basis = SoupBasis(
        base=manifest.base.fingerprint,
        experts=manifest.expert_names,
        objectives=manifest.objective_names,
        anchors=anchors(manifest),
        beta=manifest.beta,
        feature_means=means,
        feature_scales=scales,
        effective_rank={str(share): count for share, count in rank.at.items()},
        prior=plain_prior(n_experts=len(manifest.expert_names)),
        floor=None if floor is None else next(iter(floor.items())),
        settings=load_settings(SoupSettings, overrides=(*defaults, *overrides)),
    )
    if population is not None:
        basis = _with_population(basis, opened, read_feedback(population), calibration=ratios)
    save_basis(folder / SOUP, basis)
    order = select_experts(matrix, n_experts=len(basis.experts))
    return SoupWritten(folder / SOUP, basis, tuple(basis.experts[k] for k in order))


def measured_settings(
    manifest: Manifest, states: States, *, has_population: bool
) -> dict[str, float]:
    """The library's trust region, from its anchors and how far its experts go on these states."""
    kls = np.maximum(expert_kls(states), LEAST_KL)
    return settings_for(anchors(manifest), kls, has_population=has_population)


def open_basis(library: Library) -> SoupBasis:
    """The library's `soup.json`.

    Raises:
        InvalidInputError: there is none, or it lacks a field.
        FormatError: it is for another base, or for other experts than the library has now.
    """
    path = library.folder / SOUP
    if not path.is_file():
        raise InvalidInputError(
            f"The library {str(library.folder)!r} has no {SOUP}; run 'palate soup basis' first."
        )
    basis = load_basis(path, base=library.manifest.base.fingerprint)
    if basis.experts != library.manifest.expert_names or basis.beta != library.manifest.beta:
        raise FormatError(
            f"The file {str(path)!r} is for the experts {', '.join(basis.experts)} at beta "
            f"{basis.beta:g}, but the library has {', '.join(library.manifest.expert_names)} at "
            f"{library.manifest.beta:g}; run 'palate soup basis' again."
        )
    return basis


def calibration_answers(opened: Opened) -> list[Scored]:
    """Rollouts of the library as the base read them, at most `N_CALIBRATION`, evenly spread."""
    library = opened.library
    rows = read_rollouts(library.rollouts_path, objectives=library.manifest.objective_names)
    every = max(1, len(rows) // N_CALIBRATION)
    return [
        replace(scored_text(opened.base, row.prompt, ""), answer=row.tokens)
        for row in rows[::every][:N_CALIBRATION]
    ]


def calibration_states(opened: Opened) -> States:
    """States that the base passes through in its own answers, the same at every call."""
    return sample_states(
        opened.base,
        opened.bank,
        calibration_answers(opened),
        n_states=N_STATES,
        generator=generator_for(0, "soup states", opened.base.fingerprint),
    )


def shown_log_ratios(
    base: Base, library: Library, shown: Sequence[Shown]
) -> Float[ndarray, "answers experts"]:
    """`[answers, experts]`: brought with the feedback, or read by the experts.

    Raises:
        InvalidCoefficientsError: an answer brings log-ratios of an unknown expert, or of some only.
    """
    names = library.manifest.expert_names
    found = np.full((len(shown), len(names)), np.nan)
    for place, answer in enumerate(shown):
        if answer.log_ratios:
            found[place] = _brought(dict(answer.log_ratios), names)
    unread = [place for place, answer in enumerate(shown) if not answer.log_ratios]
    if unread:
        items = [scored_text(base, shown[at].prompt, shown[at].text) for at in unread]
        with progress_of("read answers, experts") as report:
            found[unread] = log_ratios(base, library.expert_folders(), items, on_expert=report)
    return found


def _brought(named: dict[str, float], names: tuple[str, ...]) -> list[float]:
    unknown = [name for name in named if name not in names]
    missing = [name for name in names if name not in named]
    if unknown or missing:
        what = f"the unknown expert {unknown[0]!r}" if unknown else f"nothing of {missing[0]!r}"
        raise InvalidCoefficientsError(
            f"The log-ratios of an answer name {what}; the experts are {', '.join(names)}."
        )
    return [named[name] for name in names]


def _with_population(
    basis: SoupBasis,
    opened: Opened,
    said: Sequence[Said],
    *,
    calibration: Float[ndarray, "answers experts"],
) -> SoupBasis:
    """The basis with the prior and gain of everybody's comparisons; other kinds are left out."""
    pairs = [item for item in said if item.kind == "comparison"]
    shown = shown_answers(pairs)
    place_of = {answer: place for place, answer in enumerate(shown)}
    features = basis.features(shown_log_ratios(opened.base, opened.library, shown))
    by_person: dict[str, list[tuple[ndarray, float]]] = {}
    for item in pairs:
        if item.second is not None:
            difference = features[place_of[item.first]] - features[place_of[item.second]]
            by_person.setdefault(item.person, []).append((difference, item.label))
    longest = max((len(rows) for rows in by_person.values()), default=0)
    differences = np.zeros((len(by_person), longest, len(basis.experts)))
    labels = np.full((len(by_person), longest), 0.5)
    discounts = np.zeros((len(by_person), longest))
    for person, rows in enumerate(by_person.values()):
        differences[person, : len(rows)] = [difference for difference, _ in rows]
        labels[person, : len(rows)] = [label for _, label in rows]
        discounts[person, : len(rows)] = 1.0
    prior = population_prior(
        fit_population(differences, labels, discounts=discounts).prior,
        calibration=basis.features(calibration),
        scales=basis.feature_scales,
    )
    return replace(basis, prior=prior)
