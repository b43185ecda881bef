"""Own words are where a belief starts; feedback corrects it, taking them back undoes it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from palate.core.types import Belief, Feedback
from palate.preferences.belief import Learner
from palate.store.database import Database
from palate.store.store import SqlProfileStore
from palate.store.users import add_user, change_user

PLAIN = Learner(Belief(np.zeros(3), np.eye(3)))
WORDED = Learner(Belief(np.array([1.0, 0.0, -1.0]), 0.5 * np.eye(3)))


@pytest.fixture
def worded(database: Database) -> SqlProfileStore:
    read = {"plain words": WORDED, "nothing known": None}
    return SqlProfileStore(database, PLAIN, read_words=read.__getitem__)


def say(store: SqlProfileStore, text: str | None) -> None:
    add_user(store.database, tenant="default", name="ana")
    change_user(store.database, tenant="default", name="ana", instruction=text)


def test_words_alone_are_believed_and_count_as_one_item(worded: SqlProfileStore) -> None:
    say(worded, "plain words")
    known, belief = worded.known("ana", apply_after=3)
    assert known.instruction == "plain words"
    assert known.belief is not None
    assert known.belief.n_observations == 1
    assert np.array_equal(known.belief.mean, WORDED.prior.mean)
    assert belief is not None
    assert belief.n_observations == 0
    assert worded.known("ana", apply_after=None)[0].belief is None  # observing uses none


def test_words_about_nothing_leave_the_belief_alone(worded: SqlProfileStore) -> None:
    say(worded, "nothing known")
    known, belief = worded.known("ana", apply_after=3)
    assert known.belief is None
    assert known.instruction == "nothing known"
    assert belief is not None
    assert np.array_equal(belief.mean, np.zeros(3))


def test_a_stated_preference_goes_before_words(worded: SqlProfileStore) -> None:
    say(worded, "plain words")
    change_user(worded.database, tenant="default", name="ana", preference={"brief": 1.0})
    known, _ = worded.known("ana", apply_after=3)
    assert known.belief is None
    assert known.preference == {"brief": 1.0}


def test_feedback_corrects_words_as_any_prior(
    worded: SqlProfileStore, make_items: Callable[..., list[Feedback]]
) -> None:
    items = make_items("ana", 30)
    say(worded, "plain words")
    for item in items:
        worded.append(item)
    exact = WORDED.rebuild(items)
    stored = worded.belief("ana")
    assert stored is not None
    assert np.array_equal(stored.mean, exact.mean)
    assert worded.learner_of("ana") is WORDED
    away = np.linalg.norm(stored.mean - PLAIN.rebuild(items).mean)
    assert away < np.linalg.norm(WORDED.prior.mean - PLAIN.prior.mean)


def test_taken_back_words_leave_no_trace(
    worded: SqlProfileStore, make_items: Callable[..., list[Feedback]]
) -> None:
    items = make_items("ana", 7)
    for item in items[:4]:
        worded.append(item)
    say(worded, "plain words")
    for item in items[4:]:
        worded.append(item)
    say(worded, None)
    belief = worded.belief("ana")
    assert belief is not None
    assert np.array_equal(belief.mean, PLAIN.rebuild(items).mean)
    worded.append(replace(items[0], key="later"))
    belief = worded.belief("ana")
    assert belief is not None
    assert belief.n_observations == 8
