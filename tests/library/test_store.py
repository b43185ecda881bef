"""Users of a library: what is stated, what is learned, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from palate.core.errors import FormatError, InvalidInputError, InvalidPreferenceError
from palate.library.features import features_of
from palate.library.library import Library
from palate.library.store import APPLY_AFTER, UserStore, open_store
from palate.models.chat import encode_prompt
from palate.serve.settings import ServeSettings


@pytest.fixture(scope="module")
def library(tiny_soup_library: Path) -> Library:
    return Library.load(tiny_soup_library)


@pytest.fixture
def store(library: Library, tmp_path: Path):
    with open_store(f"sqlite:///{tmp_path / 'users.db'}", library) as opened:
        yield opened


def pair(library: Library, prompt: str = "Why?", *, method: str = "base"):
    return [library.generate(prompt, method=method, seed=seed) for seed in (1, 2)]


def test_nothing_is_known_of_an_unknown_user(store: UserStore) -> None:
    assert store.known("ana").is_empty
    assert store.users() == []
    with pytest.raises(InvalidInputError, match="'ana'"):
        store.export("ana")


def test_what_users_state_is_known_and_can_be_taken_back(store: UserStore) -> None:
    store.describe("ana", "  Keep it short. ")
    store.set_preference("ana", {"short": 0.5, "kind": 0.5})
    store.set_preference("ben", {"plain": 1.0})
    known = store.known("ana")
    assert known.instruction == "Keep it short."
    assert known.preference == {"short": 0.5, "kind": 0.5}
    assert known.belief is None
    assert store.known("ben").instruction is None
    assert store.users() == ["ana", "ben"]
    assert store.export("ana")["instruction"] == "Keep it short."
    store.describe("ana", " ")
    store.set_preference("ana", None)
    assert store.known("ana").is_empty
    assert store.erase("ana").n_rows == 1
    assert store.users() == ["ben"]


def test_a_preference_off_the_simplex_and_an_unknown_objective_are_refused(
    store: UserStore,
) -> None:
    with pytest.raises(InvalidPreferenceError):
        store.set_preference("ana", {"short": 0.7})
    with pytest.raises(InvalidPreferenceError, match="odd"):
        store.set_preference("ana", {"odd": 1.0})
    assert store.users() == []


def test_verdicts_become_a_belief_that_takes_over_after_the_third(
    store: UserStore, library: Library
) -> None:
    store.set_preference("ana", {"short": 1.0})
    for number in range(APPLY_AFTER):
        assert store.known("ana").belief is None
        first, second = pair(library, f"Why {number}?")
        assert store.record("ana", chosen=first, rejected=second)
    known = store.known("ana")
    assert known.belief is not None
    assert known.preference is None
    assert known.belief.n_observations == APPLY_AFTER
    output = library.generate("And?", user="ana", store=store, method="soup")
    assert output.reason == "The coefficients were learned from the user's feedback."


def test_a_verdict_is_the_difference_of_both_answers_features(
    store: UserStore, library: Library
) -> None:
    first, second = pair(library)
    store.record("ana", chosen=first, rejected=second)
    context = encode_prompt(library.base, library.format("Why?"))
    answers = [first.completion.tokens, second.completion.tokens]
    a, b = features_of(
        library.base, library.bank, beta=library.manifest.beta, context=context, answers=answers
    )
    (kept,) = store.export("ana")["feedback"]
    assert np.allclose(kept["features"], np.array(a) - np.array(b))
    assert kept["label"] == 1.0


def test_answers_by_different_methods_to_one_prompt_can_be_compared(
    store: UserStore, library: Library
) -> None:
    plain = library.generate("Why?", method="base")
    prompted = library.generate("Why?", method="prompt", instruction="Be short.", seed=1)
    assert plain.decision.messages != prompted.decision.messages
    assert store.record("ana", chosen=prompted, rejected=plain)


def test_comparisons_that_say_nothing_are_refused(store: UserStore, library: Library) -> None:
    first, second = pair(library)
    with pytest.raises(InvalidInputError, match="different prompts"):
        store.record("ana", chosen=first, rejected=pair(library, "What?")[0])
    with pytest.raises(InvalidInputError, match="are equal"):
        store.record("ana", chosen=first, rejected=first)
    with pytest.raises(InvalidInputError, match="identifier"):
        store.record("", chosen=first, rejected=second)
    assert store.users() == []


def test_one_key_is_one_verdict(store: UserStore, library: Library) -> None:
    first, second = pair(library)
    assert store.record("ana", chosen=first, rejected=second, key="k")
    assert not store.record("ana", chosen=first, rejected=second, key="k")
    with pytest.raises(InvalidInputError, match="key 'k'"):
        store.record("ana", chosen=second, rejected=first, key="k")


def test_ratings_of_one_prompt_are_compared(store: UserStore, library: Library) -> None:
    first, second = pair(library)
    assert store.rate("ana", first, 4.0)
    assert store.rate("ana", second, 2.0)
    kept = store.export("ana")["feedback"]
    assert [row["label"] for row in kept] == [4.0, 2.0]
    assert len({row["group"] for row in kept}) == 1
    with pytest.raises(InvalidInputError, match="not finite"):
        store.rate("ana", first, float("nan"))


def test_a_verdict_is_withdrawn_by_its_key(store: UserStore, library: Library) -> None:
    first, second = pair(library)
    store.record("ana", chosen=first, rejected=second, key="one")
    assert store.withdraw("ana", "one")
    assert not store.withdraw("ana", "one")
    assert store.known("ana").belief is None
    with pytest.raises(InvalidInputError, match="'bob' has no feedback 'one'"):
        store.withdraw("bob", "one")


def test_the_database_is_the_servers_and_belongs_to_one_library(
    store: UserStore, library: Library, tiny_library: Path, tmp_path: Path
) -> None:
    from palate.serve.assemble import assemble

    store.set_preference("ana", {"short": 1.0})
    served = assemble(library, ServeSettings(), database=store.url)
    assert served.store("default").users() == ["ana"]
    assert served.store("default").learner.digest == library.soups.learner().digest
    served.database.close()
    assert ServeSettings().apply_after == APPLY_AFTER
    other = Library.load(tiny_library)
    two = replace(other.manifest, experts=other.manifest.experts[:2])
    narrowed = Library(replace(other.files, manifest=two), other.base, other.bank)
    with pytest.raises(FormatError, match="belongs to the library"):
        open_store(store.url, narrowed)


def test_a_library_without_experts_has_no_users(tiny_library: Path, tmp_path: Path) -> None:
    bare = Library.load(tiny_library.parent / "base")
    with pytest.raises(InvalidInputError, match="has no experts"):
        open_store(str(tmp_path / "users.db"), bare)
