"""Comments are words that verdicts correct; how probable an answer was is kept."""

from collections.abc import Callable

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from palate.core.types import Belief, Feedback
from palate.preferences.belief import Learner
from palate.store.database import Database
from palate.store.responses import Response, find_response, record_response
from palate.store.store import SqlProfileStore
from palate.store.users import change_user, start_afresh

MakeItems = Callable[..., list[Feedback]]
PLAIN = Learner(Belief(np.zeros(3), np.eye(3)))
SHORT = Learner(Belief(np.array([1.0, 0.0, -1.0]), 0.5 * np.eye(3)))
WIDE = Learner(Belief(np.zeros(3), 2.0 * np.eye(3)))
READ = {"Shorter.": SHORT, "Shorter.\nMore detail.": WIDE, "I am a nurse.\nShorter.": SHORT}


@pytest.fixture
def worded(database: Database) -> SqlProfileStore:
    return SqlProfileStore(database, PLAIN, read_words=READ.get)


def comment(words: str, key: str) -> Feedback:
    return Feedback("ann", "comment", (), 0.0, group=words, key=key)


def believed(store: SqlProfileStore) -> Belief:
    belief = store.belief("ann")
    assert belief is not None
    return belief


def is_same(one: Belief, other: Belief) -> bool:
    return np.array_equal(one.mean, other.mean) and np.array_equal(one.covariance, other.covariance)


def test_comments_are_words_that_verdicts_correct(
    worded: SqlProfileStore, make_items: MakeItems
) -> None:
    items = make_items("ann", 5)
    for item in items[:3]:
        worded.append(item)
    assert worded.append(comment("Shorter.", "c1"))
    assert not worded.append(comment("Shorter.", "c1"))
    assert is_same(believed(worded), SHORT.rebuild(items[:3]))
    for item in items[3:]:
        worded.append(item)
    assert is_same(believed(worded), SHORT.rebuild(items))
    assert worded.known("ann", apply_after=3)[0].instruction == "Shorter."
    assert believed(worded).n_observations == 5  # words are the prior's, not one of them


def test_contradictory_comments_are_read_together_and_taken_back_one_by_one(
    worded: SqlProfileStore,
) -> None:
    worded.append(comment("Shorter.", "c1"))
    worded.append(comment("More detail.", "c2"))
    assert is_same(believed(worded), WIDE.start)  # as the reader of words has it: wider
    worded.withdraw("ann", "c2")
    assert is_same(believed(worded), SHORT.start)
    worded.withdraw("ann", "c1")
    assert is_same(believed(worded), PLAIN.start)
    assert worded.known("ann", apply_after=3)[0].instruction is None


def test_comments_add_to_the_instruction_and_go_with_a_fresh_start(worded: SqlProfileStore) -> None:
    worded.append(comment("Shorter.", "c1"))
    change_user(worded.database, tenant="default", name="ann", instruction="I am a nurse.")
    assert worded.known("ann", apply_after=3)[0].instruction == "I am a nurse.\nShorter."
    assert is_same(believed(worded), SHORT.start)
    start_afresh(worded.database, tenant="default", name="ann")
    assert worded.known("ann", apply_after=3)[0].instruction == "I am a nurse."


def test_of_too_many_words_the_newest_are_read(worded: SqlProfileStore) -> None:
    for place in range(5):
        worded.append(comment(f"{place}" * 600, f"c{place}"))
    instruction = worded.known("ann", apply_after=3)[0].instruction
    assert instruction == "\n".join(f"{place}" * 600 for place in (2, 3, 4))
    change_user(worded.database, tenant="default", name="ann", instruction="x" * 798)
    instruction = worded.known("ann", apply_after=3)[0].instruction
    assert instruction == "x" * 798 + "\n" + "3" * 600 + "\n" + "4" * 600  # 2,000 in all
    change_user(worded.database, tenant="default", name="ann", instruction="x" * 799)
    instruction = worded.known("ann", apply_after=3)[0].instruction
    assert instruction == "x" * 799 + "\n" + "4" * 600


def test_the_probability_of_what_was_shown_is_kept_and_never_changed(database: Database) -> None:
    shown = Response("r", "ann", "p", ("x",), (), "soup", log_probs=(-1.5,))
    record_response(database, shown)
    assert find_response(database, "r") == shown
    changed = pytest.raises(DBAPIError, match="only ever appended")
    with changed, database.writing() as connection:
        connection.execute(text("UPDATE responses SET log_probs = '[0.0]'"))
