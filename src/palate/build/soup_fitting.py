"""What the fit of a user's coefficients rests on: observations, their features, and how they count.

A function of it may serve a belief of its own in place of the logistic fit's (`Refine`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from palate.build.soup_feedback import Observation, Shown, shown_answers
from palate.core.errors import InvalidCoefficientsError
from palate.core.progress import progress_of
from palate.core.types import Belief, Feedback
from palate.library.features import log_ratios, scored_text
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.library.soup import open_basis
from palate.models.load import Base
from palate.preferences.belief import Learner
from palate.preferences.settings import LearningSettings
from palate.soup.basis_file import SoupBasis

Features = dict[Shown, Float[np.ndarray, " experts"]]  # scaled, by answer


@dataclass(frozen=True, eq=False)
class Fitting:
    """What the fit of a user's coefficients rests on."""

    library: Library
    learner: Learner
    observations: Sequence[Observation]
    items: Sequence[Feedback]  # the same over scaled features, as beliefs are learned from them
    features: Features  # of the answers
    log_ratios: Mapping[Shown, Float[np.ndarray, " experts"]]  # theirs, nats


Refine = Callable[[Fitting, Belief], Belief | None]
"""From the logistic fit a belief, over scaled features, to serve instead; `None` keeps it."""


def fitting_of(opened: Library, observations: Sequence[Observation]) -> Fitting:
    """One user's observations with log-ratios and features by the library's basis."""
    basis, shown = open_basis(opened.files), shown_answers(observations)
    ratios = shown_log_ratios(opened.base, opened.files, shown)
    features = dict(zip(shown, basis.features(ratios), strict=True))
    items = as_feedback(observations, features, basis=basis)
    by_answer = dict(zip(shown, ratios, strict=True))
    return Fitting(opened, learner_of(basis), observations, items, features, by_answer)


def shown_log_ratios(
    base: Base, library: LibraryFolder, shown: Sequence[Shown]
) -> Float[np.ndarray, "answers experts"]:
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


def learner_of(basis: SoupBasis) -> Learner:
    """How beliefs over this basis are learned."""
    return Learner(basis.prior, settings=LearningSettings(gain=basis.prior.gain))


def as_feedback(
    observations: Sequence[Observation], features: Features, *, basis: SoupBasis
) -> list[Feedback]:
    """The observations with differences of features, as beliefs are learned from them."""
    typical = basis.feature_means / basis.feature_scales
    items: list[Feedback] = []
    for item in observations:
        feature = features[item.first]
        if item.second is not None:
            feature = feature - features[item.second]
        elif item.kind == "thumbs":
            feature = feature - typical
        judged = (item.user or "user", item.kind, tuple(feature.tolist()), item.label)
        items.append(Feedback(*judged, group=item.first.prompt, key=str(item.line)))
    return items
