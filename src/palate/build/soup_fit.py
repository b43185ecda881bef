"""A library's `soup.json`, the basis of coefficients, and a user's soup fitted from feedback.

A fit has coefficients with intervals, and a predicted gain.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

from palate.build.soup_feedback import Observation, of_user, read_feedback, shown_answers
from palate.build.soup_fitting import Features, Refine, fitting_of, shown_log_ratios
from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.core.progress import progress_of
from palate.core.settings import load_settings
from palate.core.templates import render_sentences
from palate.core.types import Belief
from palate.library.features import log_ratios
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.library.manifest import experts_key
from palate.library.soup import (
    SOUP,
    calibration_answers,
    has_own_basis,
    measured_settings,
    open_basis,
    plain_basis,
)
from palate.preferences.population import fit_population
from palate.soup.basis_file import SoupBasis, load_basis, save_basis
from palate.soup.coefficients_file import CoefficientsFile, save_coefficients
from palate.soup.learning import population_prior
from palate.soup.plans import SoupMethod
from palate.soup.report import SoupReport, length_correlation, report_soup
from palate.soup.settings import SoupSettings
from palate.soup.spectral import PersonalSoup, measure_spectrum, personal_soup, predicted_gain


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
    before = load_basis(folder / SOUP) if has_own_basis(opened.files) else None
    basis = replace(
        plain_basis(manifest, opened.states),
        feature_means=spectrum.feature_means,
        feature_scales=spectrum.feature_scales,
        effective_rank={str(share): n for share, n in spectrum.effective_rank.items()},
        floor=None if floor is None else next(iter(floor.items())),
        settings=load_settings(SoupSettings, overrides=(*defaults, *overrides)),
        strength=before and before.strength,
        strength_from=before.strength_from if before else "",
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


def _with_population(
    basis: SoupBasis,
    opened: Library,
    observations: Sequence[Observation],
    *,
    calibration: Float[np.ndarray, "answers experts"],
) -> SoupBasis:
    """The basis with the prior and gain of all users' comparisons; other kinds are left out."""
    pairs = [item for item in observations if item.kind == "comparison"]
    shown = shown_answers(pairs)
    ratios = shown_log_ratios(opened.base, opened.files, shown)
    features = dict(zip(shown, basis.features(ratios), strict=True))
    by_user: dict[str, list[tuple[np.ndarray, float]]] = {}
    for item in pairs:
        if item.second is not None:
            difference = features[item.first] - features[item.second]
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


LENGTH_CORRELATION = 0.5  # above it the fit may be of length
LOW_GAIN = 0.5  # of the population's: below it a user contradicts themselves
MIN_FOR_LENGTH = 5


@dataclass(frozen=True, eq=False)
class FittedSoup:
    """A user's learned coefficients."""

    soup: PersonalSoup  # as it is served, with the posterior in place of the belief
    predicted: tuple[float, float]  # gain over the base model per token, and its standard error
    experts: tuple[str, ...]  # names, in bank order
    confidence: float  # confidence of the intervals
    counts: dict[str, int]  # numbers of feedback items by kind
    gain: float  # how sharply this user's labels follow margins, divided by the population's
    report: SoupReport  # numbers of the served soup on calibration states
    warnings: tuple[str, ...]  # one sentence each
    base: str  # hash of the base model's files

    @property
    def intervals(self) -> Float[np.ndarray, "experts ends"]:
        """`[experts, 2]`: credible interval of each believed coefficient, before the region."""
        return _interval(self.soup.belief.mean, self.soup.standard_errors, self.confidence)

    def coefficients_file(self) -> CoefficientsFile:
        """The served coefficients as a file."""
        served = dict(zip(self.experts, self.soup.coefficients.tolist(), strict=True))
        return CoefficientsFile(base=self.base, coefficients=served)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        soup = self.soup
        believed, ends = soup.belief.mean, self.intervals.tolist()
        rows = zip(self.experts, soup.coefficients, believed, ends, strict=True)
        low, high = _interval(*self.predicted, self.confidence).tolist()
        return {
            "coefficients": {
                name: {"served": float(c), "believed": float(b), "low": low, "high": high}
                for name, c, b, (low, high) in rows
            },
            "confidence": self.confidence,
            "n_feedback": self.counts,
            "gain_of_population": self.gain,
            "scale": soup.scale,
            "kl_per_token": self.report.kl_per_token,
            "entropy_ratio": self.report.entropy_ratio,
            "predicted_gain_per_token": {"estimate": self.predicted[0], "low": low, "high": high},
            "warnings": list(self.warnings),
        }


def _interval(
    mean: float | Float[np.ndarray, " experts"],
    error: float | Float[np.ndarray, " experts"],
    level: float,
) -> Float[np.ndarray, "*experts ends"]:
    half = float(ndtri(0.5 + level / 2)) * np.asarray(error)
    return np.stack([mean - half, mean + half], axis=-1)


def fit_soup(  # noqa: PLR0913  the command's options
    folder: Path,
    feedback: Path,
    *,
    method: SoupMethod = "soup",
    user: str | None = None,
    out: Path | None = None,
    base: str | None = None,
    refine: Refine | None = None,
) -> FittedSoup:
    """A user's coefficients from a feedback file, as `palate.preferences.belief` learns them.

    The belief is served; the printed numbers and intervals are the posterior's. `method` is the
    soup that will serve the coefficients; a user is named where the file has several; `out` is for
    `palate generate --coefficients @FILE`; `refine` may serve a belief of its own.

    Raises:
        InvalidInputError: there is no library or no `soup.json`, or the feedback is wrong.
        InvalidCoefficientsError: log-ratios are of unknown experts or not finite.
        FormatError: `soup.json` is for another base or other experts.
    """
    observations = of_user(read_feedback(feedback), user, path=feedback)
    opened = Library.load(folder, base=base)
    basis = open_basis(opened.files)
    fitting = fitting_of(opened, observations)
    learner, items = fitting.learner, fitting.items
    belief = learner.rebuild(items)
    refined = None if refine is None else refine(fitting, belief)
    states = opened.states
    soup = personal_soup(
        basis.unscaled(refined or belief),
        states=states,
        method=method,
        settings=basis.settings,
        floor=basis.floor_place,
    )
    budget = basis.settings.budget_after(belief.n_observations)
    report = report_soup(  # on calibration states
        soup.coefficients,
        states,
        budget=1.05 * budget,  # dropping experts that hardly act may move it a little
        curvature=np.linalg.inv(belief.covariance),
    )
    posterior = basis.unscaled(learner.posterior(items))
    warnings = render_sentences(
        Path(__file__).parent / "templates/soup_fit.txt.jinja",
        {},
        scale=soup.scale,
        gain=belief.gain / basis.prior.gain,
        low_gain=LOW_GAIN,
        has_population=basis.prior.n_observations > 0,
        is_kept=refine is not None and refined is None,
        correlation=_length_correlation(observations, fitting.features, belief=belief),
        most_correlation=LENGTH_CORRELATION,
    )
    fitted = FittedSoup(
        soup=replace(soup, belief=posterior),
        predicted=predicted_gain(soup.coefficients, states, believed=posterior, beta=basis.beta),
        experts=basis.experts,
        confidence=basis.settings.confidence,
        counts=dict(Counter(item.kind for item in observations)),
        gain=belief.gain / basis.prior.gain,
        report=report,
        warnings=(*warnings, *report.warnings),
        base=basis.base,
    )
    if out is not None:
        save_coefficients(out, fitted.coefficients_file())
    return fitted


def _length_correlation(
    observations: Sequence[Observation], features: Features, *, belief: Belief
) -> float:
    """Of believed margins with differences of length; zero of few comparisons."""
    pairs = [(item.first, item.second) for item in observations if item.second is not None]
    if len(pairs) < MIN_FOR_LENGTH:
        return 0.0
    margins = np.array([belief.mean @ (features[a] - features[b]) for a, b in pairs])
    longer = np.array([float(len(a.text.split()) - len(b.text.split())) for a, b in pairs])
    return length_correlation(margins, longer)
