"""The policy for everybody is trained on as many answers as the experts were."""

from palate.library.library import Library
from palate.mixture.wording import MixtureRequest
from research.world.conditioned import fair_share

WISHES = ((0.5, 0.5, 0.0), (0.0, 0.5, 0.5), (0.0, 0.0, 1.0))


def test_a_fair_share_is_half_as_many_as_rollouts_since_each_is_answered_twice(tiny_soup_library):
    opened = Library.load(tiny_soup_library)  # three prompts, eight answers each
    everything = [MixtureRequest(f"prompt {k}", wish) for k in range(20) for wish in WISHES]
    share = fair_share(opened, everything)
    assert len(share) == 3 * 8 // 2
    assert len(set(share)) == len(share)
    places = [everything.index(item) for item in share]
    assert places == sorted(places)
    assert {item.strengths for item in share} == {MixtureRequest("x", wish).strengths for wish in WISHES}
    assert fair_share(opened, everything) == share


def test_all_are_taken_where_there_are_fewer(tiny_soup_library):
    opened = Library.load(tiny_soup_library)
    few = [MixtureRequest("a", wish) for wish in WISHES]
    assert fair_share(opened, few) == few
