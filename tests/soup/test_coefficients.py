import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.soup.plans import reward_space_coefficients


def test_with_one_expert_per_objective_the_coefficients_are_the_preference():
    preference = np.array([0.2, 0.5, 0.3])
    assert reward_space_coefficients(preference, anchors=np.eye(3)) == pytest.approx(preference)


def test_more_anchors_share_and_fewer_come_as_close_as_they_can():
    anchors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    shared = reward_space_coefficients(np.array([1.0, -0.5]), anchors=anchors)
    assert shared == pytest.approx([0.5, 0.5, -0.5])
    alone = reward_space_coefficients(np.array([3.0, 1.0]), anchors=np.array([[1.0, 1.0]]))
    assert alone == pytest.approx([2.0])


def test_bad_preferences_are_refused():
    with pytest.raises(InvalidInputError, match="one row"):
        reward_space_coefficients(np.zeros(3), anchors=np.zeros((4, 2)))
    with pytest.raises(InvalidInputError, match="not finite"):
        reward_space_coefficients(np.array([np.nan]), anchors=np.ones((2, 1)))
