import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.metrics.worst import worst_share_mean


def test_the_worst_tenth_of_thirty_users_is_three():
    values = np.arange(30.0)[::-1]
    assert worst_share_mean(values) == 1.0
    assert worst_share_mean(values, share=1e-6) == 0.0
    assert worst_share_mean(values, share=1.0) == 14.5
    with pytest.raises(InvalidInputError, match="share"):
        worst_share_mean(values, share=0.0)
