"""Seeds: the same name gives the same numbers, whatever else is drawn."""

from palate.core.seeds import derive_seed, generator_for


def test_a_derived_seed_is_the_start_of_a_sha256_and_stays_so() -> None:
    assert derive_seed(0) == 3456079177858693020
    assert derive_seed(3, "rollouts", 7) == 7358513607175918439


def test_names_and_seeds_tell_steps_apart() -> None:
    seeds = {derive_seed(s, name, i) for s in range(3) for name in "ab" for i in range(3)}
    assert len(seeds) == 18
    assert generator_for(1, "a").random() == generator_for(1, "a").random()
    assert generator_for(1, "a").random() != generator_for(1, "b").random()
