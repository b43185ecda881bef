"""Of each seed of the small world only what the ways need is built, the library first."""

import pytest

from palate.evaluate.suite import DEFAULT_WAYS, Suite
from palate.mixture.wording import Asked, Wording
from palate.models.load import load_base
from palate.recipes.evaluate_world import world_libraries, world_parts, world_people
from palate.world.objectives import OBJECTIVE_NAMES, OBJECTIVES
from palate.world.prompts import base_folder


@pytest.mark.parametrize(
    ("ways", "parts"),
    [
        (("base", "soup"), {"library"}),
        (("base", "mixture"), {"library", "controller"}),
        (("base", "mixture-even"), {"library"}),
        (("base", "bespoke-strong"), {"library", "bespoke"}),
        (DEFAULT_WAYS, {"library", "bespoke", "controller", "conditioned"}),
    ],
)
def test_parts_follow_from_the_ways(tmp_path, ways, parts):
    suite = Suite(ways=ways)
    found = world_parts(suite)
    assert found[0] == "library"
    assert set(found) == parts
    folders = world_libraries(suite, work=tmp_path)
    assert (folders.bespoke is not None) == ("bespoke" in parts)
    assert (folders.conditioned is not None) == ("conditioned" in parts)


def test_a_person_is_told_the_same_words_by_all_ways_that_tell():
    base = load_base(str(base_folder()))
    wording = Wording(base, tuple(objective.instruction for objective in OBJECTIVES), "full")
    for person in world_people():
        strengths = tuple(person.preference.get(name, 0.0) for name in OBJECTIVE_NAMES)
        assert wording.preference(Asked("any", strengths)) == person.instruction
