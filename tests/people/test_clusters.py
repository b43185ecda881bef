import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.people.clusters import fit_clusters


def crowd(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    centers = np.repeat([[0.0, 3.0], [3.0, 0.0]], [80, 40], axis=0)
    means = centers + 0.5 * generator.standard_normal((120, 2))
    return means, np.tile(0.1 * np.eye(2), (120, 1, 1))


def test_two_kinds_of_people_are_found_with_their_shares() -> None:
    means, covariances = crowd()
    found = fit_clusters(means, covariances, n_clusters=2, generator=np.random.default_rng(1))
    assert found.shares == pytest.approx([2 / 3, 1 / 3], abs=0.02)
    assert found.centers == pytest.approx(np.array([[0.0, 3.0], [3.0, 0.0]]), abs=0.25)
    assert (found.memberships.argmax(axis=1) == np.repeat([0, 1], [80, 40])).all()


def test_the_criterion_prefers_the_true_number_of_clusters() -> None:
    means, covariances = crowd()
    scores = [
        fit_clusters(means, covariances, n_clusters=k, generator=np.random.default_rng(1)).bic
        for k in (1, 2, 3)
    ]
    assert int(np.argmin(scores)) == 1


def test_a_person_of_whom_nothing_is_known_belongs_to_clusters_by_their_shares() -> None:
    means, covariances = crowd()
    means[0], covariances[0] = [1.5, 1.5], 1e4 * np.eye(2)
    found = fit_clusters(means, covariances, n_clusters=2, generator=np.random.default_rng(1))
    assert found.memberships[0] == pytest.approx(found.shares, abs=0.02)


def test_more_clusters_than_people_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="cannot form"):
        fit_clusters(
            np.zeros((2, 1)), np.ones((2, 1, 1)), n_clusters=3, generator=np.random.default_rng(0)
        )
