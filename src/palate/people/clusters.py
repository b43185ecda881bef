"""Kinds of people, for reporting: clusters of beliefs.

A mixture of normals with one common covariance is fitted to the beliefs' means by EM; what is
uncertain of a person spreads the person over the clusters, so that people of whom little is known
are not forced into one. Clusters describe a population; nobody is served by cluster.

Source: Dempster, Laird & Rubin 1977; McLachlan & Peel 2000 (observations with known errors).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.cluster.vq import kmeans2
from scipy.special import logsumexp

from palate.core.errors import InvalidInputError

N_ROUNDS = 50
FLOOR = 1e-6  # added to the clusters' covariance, relative to the people's mean variance


@dataclass(frozen=True, eq=False)
class Clusters:
    """Kinds of people.

    Attributes:
        shares: `[clusters]`, of the people, largest first.
        centers: `[clusters, features]`.
        memberships: `[people, clusters]`, probabilities.
        bic: Bayesian information criterion, nats; lower is better between numbers of clusters.
    """

    shares: Float[ndarray, " clusters"]
    centers: Float[ndarray, "clusters features"]
    memberships: Float[ndarray, "people clusters"]
    bic: float


def fit_clusters(
    means: Float[ndarray, "people features"],
    covariances: Float[ndarray, "people features features"],
    *,
    n_clusters: int,
    generator: np.random.Generator,
) -> Clusters:
    """Clusters of people's beliefs.

    Raises:
        InvalidInputError: fewer people than clusters, or no cluster.
    """
    n_people, n_features = means.shape
    if not 1 <= n_clusters <= n_people:
        raise InvalidInputError(
            f"{n_people} people cannot form {n_clusters} clusters; ask for 1 to {n_people}."
        )
    centers, _ = kmeans2(means, n_clusters, minit="++", rng=generator)
    floor = FLOOR * np.eye(n_features) * (np.var(means, axis=0).mean() + 1e-12)
    within = np.cov(means.T, bias=True).reshape(n_features, n_features) / n_clusters + floor
    shares = np.full(n_clusters, 1.0 / n_clusters)
    memberships, log_likelihood = _assign(means, covariances, shares, centers, within)
    for _ in range(N_ROUNDS):
        shares, centers, within = _moments(means, covariances, memberships, (centers, within))
        within = within + floor
        memberships, log_likelihood = _assign(means, covariances, shares, centers, within)
    order = np.argsort(-shares)
    n_free = n_clusters * (n_features + 1) - 1 + n_features * (n_features + 1) / 2
    return Clusters(
        shares=shares[order],
        centers=centers[order],
        memberships=memberships[:, order],
        bic=float(-log_likelihood + 0.5 * n_free * np.log(n_people)),
    )


def _assign(
    means: Float[ndarray, "people features"],
    covariances: Float[ndarray, "people f f"],
    shares: Float[ndarray, " clusters"],
    centers: Float[ndarray, "clusters features"],
    within: Float[ndarray, "f f"],
) -> tuple[Float[ndarray, "people clusters"], float]:
    total = covariances + within
    away = means[:, None] - centers[None]
    solved = np.linalg.solve(total[:, None], away[..., None])[..., 0]
    squares = (away * solved).sum(axis=2)
    log_dets = np.linalg.slogdet(2.0 * np.pi * total)[1]
    joint = np.log(np.maximum(shares, 1e-300)) - 0.5 * (squares + log_dets[:, None])
    evidence = logsumexp(joint, axis=1, keepdims=True)
    return np.exp(joint - evidence), float(evidence.sum())


def _moments(
    means: Float[ndarray, "people features"],
    covariances: Float[ndarray, "people f f"],
    memberships: Float[ndarray, "people clusters"],
    before: tuple[Float[ndarray, "clusters features"], Float[ndarray, "f f"]],
) -> tuple[Float[ndarray, " clusters"], Float[ndarray, "clusters features"], Float[ndarray, "f f"]]:
    """Shares, centres and covariance from the posterior of each person's true vector."""
    centers, within = before
    pull = np.matmul(within, np.linalg.inv(covariances + within))  # [people, f, f]
    away = means[:, None] - centers[None]
    vectors = centers[None] + np.einsum("pfg,pkg->pkf", pull, away)
    left = within - np.matmul(pull, within)  # posterior covariance of each person
    counts = memberships.sum(axis=0) + 1e-12
    new_centers = np.einsum("pk,pkf->kf", memberships, vectors) / counts[:, None]
    spread = vectors - new_centers[None]
    scatter = np.einsum("pk,pkf,pkg->fg", memberships, spread, spread) + left.sum(axis=0)
    return counts / counts.sum(), new_centers, scatter / len(means)
