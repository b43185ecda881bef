"""The policy for everybody is trained on as many answers as the experts were."""

from palate.core.decision import Known, with_instruction
from palate.library.library import Library
from palate.mixture.wording import MixtureRequest
from research.world.conditioned import Conditioned, conditioned_library, fair_share

WISHES = ((0.5, 0.5, 0.0), (0.0, 0.5, 0.5), (0.0, 0.0, 1.0))


def test_a_fair_share_is_half_as_many_as_rollouts_since_each_is_answered_twice(tiny_soup_library):
    opened = Library.load(tiny_soup_library)  # three prompts, eight answers each
    everything = [MixtureRequest(f"prompt {k}", wish) for k in range(20) for wish in WISHES]
    share = fair_share(opened, everything)
    assert len(share) == 3 * 8 // 2
    assert len(set(share)) == len(share)
    places = [everything.index(item) for item in share]
    assert places == sorted(places)
    assert {item.strengths for item in share} == {
        MixtureRequest("x", wish).strengths for wish in WISHES
    }
    assert fair_share(opened, everything) == share


def test_all_are_taken_where_there_are_fewer(tiny_soup_library):
    opened = Library.load(tiny_soup_library)
    few = [MixtureRequest("a", wish) for wish in WISHES]
    assert fair_share(opened, few) == few


def test_the_conditioned_policy_is_prompted_as_in_training(tiny_library):
    library = Library.load(tiny_library)
    ana = Known(preference={"kind": 0.5, "plain": 0.5})
    folder = library.files.expert_folder("kind")
    own = conditioned_library(library, folder)
    decision = own.decide("hey", ana, method=Conditioned(library))
    assert own.bank.names == ("conditioned",)
    assert decision.plan.rows[0].coefficients == (1,)
    assert decision.messages == with_instruction("hey", "")  # the tiny objectives have no words
