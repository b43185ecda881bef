import pytest

from research.preferences.learner_logs import TOLERANCE, try_logs


def test_no_log_is_refused_and_every_fit_reaches_its_mode() -> None:
    found = try_logs(200)
    assert (found["n_refused"], found["n_not_settled"]) == (0, 0)
    assert found["n_checked"] > 100
    assert found["largest_distance"] < TOLERANCE
    assert found["n_learned_item_by_item"] == 20
    assert found["largest_difference_to_rebuilt"] < TOLERANCE


@pytest.mark.slow
def test_nor_of_five_hundred_others() -> None:
    found = try_logs(500, seed=1)
    assert (found["n_refused"], found["n_not_settled"]) == (0, 0)
    assert max(found["largest_distance"], found["largest_difference_to_rebuilt"]) < TOLERANCE
