"""The study's basis, and what users' votes make of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import log_expit

from palate.build.soup_fitting import learner_of
from palate.core.seeds import generator_for
from palate.core.types import Belief, Feedback
from palate.preferences.population import fit_population
from palate.soup.basis import effective_rank, select_experts, tilt_matrix
from palate.soup.basis_file import SoupBasis
from palate.soup.learning import feature_scales, plain_prior, population_prior
from palate.soup.plans import SoupMethod
from palate.soup.settings import SoupSettings, settings_for
from palate.soup.spectral import PersonalSoup, personal_soup
from palate.soup.states import States
from palate.soup.trust import expert_kls
from palate.training.anchors import Anchor
from research.soup.library import training_preferences
from research.soup.pool import AnswerPool, Votes, simulate_votes
from research.world.objectives import OBJECTIVE_NAMES

N_TRAINING_VOTES = 60  # of each training user


@dataclass(frozen=True, eq=False)
class StudyBasis:
    """A basis of some of the experts, with what is needed to fit and serve users on it.

    Attributes:
        places: Which of all experts, in order.
        soup: Features' scales and the population prior.
        states: Tilts of these experts on states of the base.
        features: `[answers, experts]` of the pool, scaled.
        rank: Effective rank of these experts' tilts.
    """

    places: tuple[int, ...]
    soup: SoupBasis
    states: States
    features: Float[ndarray, "answers experts"]
    rank: dict[float, int]

    def with_plain_prior(self) -> "StudyBasis":
        """The same without what is known of the population but its gain."""
        prior = plain_prior(n_experts=len(self.places), gain=self.soup.prior.gain)
        return replace(self, soup=replace(self.soup, prior=prior))


def select_places(states: States) -> tuple[int, ...]:
    """All experts in the order in which they add most (greedy D-optimality).

    The smaller bases of a sweep are its beginnings. An expert that adds less than a thousandth of
    the largest still comes before none: those left over follow in their own order.
    """
    matrix = tilt_matrix(states.reference, np.moveaxis(states.tilts, -1, 0))
    chosen = select_experts(matrix, n_experts=matrix.shape[1])
    rest = [place for place in range(matrix.shape[1]) if place not in chosen]
    return (*chosen, *rest)


def make_basis(
    pool: AnswerPool,
    states: States,
    anchors: Sequence[Anchor],
    *,
    places: Sequence[int],
    beta: float,
    seed: int,
) -> StudyBasis:
    """The basis of the experts at these places, its prior from the training users' votes.

    Args:
        pool: What users are shown; also what features are scaled on.
        states: With all experts' tilts.
        anchors: Of all experts.
        places: Which to use.
        beta: Of the library.
        seed: Of the training users and their votes.
    """
    chosen = tuple(places)
    ratios = pool.log_ratios[:, chosen]
    means, scales = feature_scales(ratios, beta=beta)
    features = beta * ratios / scales
    votes = simulate_votes(
        pool,
        training_preferences(seed=seed),
        n_comparisons=N_TRAINING_VOTES,
        generator=generator_for(seed, "soup study", "training votes"),
    )
    prior = population_prior(
        fit_population(votes.differences(features), votes.labels),
        calibration=features,
        scales=scales,
    )
    own = States(states.reference, states.tilts[:, :, chosen])
    rank = effective_rank(tilt_matrix(own.reference, np.moveaxis(own.tilts, -1, 0)))
    directions = np.array([anchors[place].direction for place in chosen])
    measured = settings_for(directions, expert_kls(own), has_population=True)
    soup = SoupBasis(
        base="world",
        experts=tuple(anchors[place].name for place in chosen),
        objectives=OBJECTIVE_NAMES,
        anchors=directions,
        beta=beta,
        feature_means=means,
        feature_scales=scales,
        effective_rank={str(share): count for share, count in rank.items()},
        prior=prior,
        settings=SoupSettings.checked(measured, source="the study"),
    )
    return StudyBasis(chosen, soup, own, features, rank)


def fit_users(basis: StudyBasis, votes: Votes, *, n_comparisons: int) -> list[Belief]:
    """What is believed of each user after the first comparisons, as the product learns it."""
    learner = learner_of(basis.soup)
    part = votes.of_first(n_comparisons)
    differences = part.differences(basis.features)
    return [
        learner.rebuild(
            [
                Feedback("user", "comparison", tuple(row.tolist()), float(label), key=str(at))
                for at, (row, label) in enumerate(zip(rows, labels, strict=True))
            ]
        )
        for rows, labels in zip(differences, part.labels, strict=True)
    ]


def serve_users(
    basis: StudyBasis, beliefs: Sequence[Belief], *, method: SoupMethod
) -> list[PersonalSoup]:
    """Everybody's soup."""
    return [
        personal_soup(
            basis.soup.unscaled(belief),
            states=basis.states,
            method=method,
            settings=basis.soup.settings,
        )
        for belief in beliefs
    ]


def best_single_experts(basis: StudyBasis, votes: Votes, *, n_comparisons: int) -> list[int]:
    """`[users]`: the expert under which what each user said is most likely, by its place here.

    Each expert alone at strength one, with the population's gain.
    """
    part = votes.of_first(n_comparisons)
    margins = basis.soup.prior.gain * part.differences(basis.features * basis.soup.feature_scales)
    signs = 2.0 * part.labels - 1.0  # labels are 0 or 1
    likelihood = log_expit(signs[:, :, None] * margins).sum(axis=1)
    return [int(place) for place in likelihood.argmax(axis=1)]
