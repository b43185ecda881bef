"""Stage 2 of a user's fit: read every compared answer by all experts, and fit with normalisers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.sparse import csr_array, vstack

from palate.build.soup_feedback import Observation, Shown
from palate.core.types import Belief, Feedback
from palate.library.features import scored_text, states_along
from palate.library.library import Library
from palate.preferences.belief import Learner
from palate.soup.normalised import Comparisons, fit_gated


def with_normalisers(
    belief: Belief,
    *,
    library: Library,
    learner: Learner,
    observations: Sequence[Observation],
    items: Sequence[Feedback],
    ratios: Mapping[Shown, Float[ndarray, " experts"]],
) -> Belief | None:
    """The belief with stage-2 coefficients, or `None` where stage 1 is to be served.

    Thumbs and ratings enter as a part of the prior. The covariance stays that of stage 1. The
    belief is over scaled features; the library's `soup.json` says from how many comparisons stage 2
    is tried. Ratios are the experts' for every answer, nats.
    """
    basis = library.basis
    both = list(zip(items, observations, strict=True))
    pairs = [(item, seen.first, seen.second) for item, seen in both if seen.second is not None]
    least = basis.settings.normalised_from
    if least is None or len(pairs) < least:
        return None
    compared = [item for item, _, _ in pairs]
    others = [item for item, seen in both if seen.second is None]
    answers = list(dict.fromkeys(answer for _, *pair in pairs for answer in pair))
    place_of = {answer: place for place, answer in enumerate(answers)}
    scored = [scored_text(library.base, answer.prompt, answer.text) for answer in answers]
    fit = fit_gated(
        Comparisons(
            np.array([ratios[first] - ratios[second] for _, first, second in pairs]),
            _visits(
                [(place_of[first], place_of[second]) for _, first, second in pairs],
                lengths=[len(item.answer) for item in scored],
            ),
            np.array([item.label for item in compared]),
            states_along(library.base, library.bank, scored),
        ),
        first=lambda used: (
            basis.unscaled(learner.refit([*others, *(compared[place] for place in used)])).mean
        ),
        prior=basis.unscaled(learner.refit(others)),
        scale=basis.beta * belief.gain,
    )
    return replace(belief, mean=fit.second * basis.feature_scales) if fit.is_second else None


def _visits(pairs: Sequence[tuple[int, int]], *, lengths: Sequence[int]) -> csr_array:
    """How often each pair's first answer passes a state minus the second; no two share a state."""
    answer_of = np.repeat(np.arange(len(lengths)), lengths)  # [states]
    rows = [
        np.where(answer_of == first, 1.0, 0.0) - (answer_of == second) for first, second in pairs
    ]
    return csr_array(vstack([csr_array(row[None]) for row in rows]))
