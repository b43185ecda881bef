"""After a receipt says cleared, nothing of the erased is in any file of the database."""

import numpy as np
import pytest

from palate.core.types import Belief, Feedback
from palate.preferences.belief import Learner
from palate.store import erase
from palate.store.database import Database
from palate.store.erase import clear_erased, erase_user, list_receipts
from palate.store.responses import Response, keep_features, record_response
from palate.store.store import SqlProfileStore
from palate.store.users import add_user, change_user, start_afresh
from store_steps import found_in_files

N_HISTORIES = 30


def live(
    database: Database, generator: np.random.Generator, *, name: str, others: list[str], n: int
) -> None:
    """A user's life among others: answers short and long, verdicts, changes, fresh starts."""
    store = SqlProfileStore(database, Learner(Belief(np.zeros(3), np.eye(3))))
    for step in range(n):
        user = name if generator.random() < 0.6 else str(generator.choice(others))
        mark = f"{user}-{name}-{step}"
        said = mark + " word" * int(generator.choice([1, 20, 300, 3000]))
        kind = generator.integers(6)
        if kind == 0:
            record_response(database, Response(f"r-{mark}", user, said, (said, said), (), "soup"))
            keep_features(database, f"r-{mark}", generator.normal(size=(2, 3)).tolist())
        elif kind == 1:
            add_user(database, tenant="default", name=user)
            change_user(database, tenant="default", name=user, instruction=said)
        elif kind == 2:
            change_user(database, tenant="default", name=user, preference={mark: 1.0})
        elif kind == 3 and generator.random() < 0.2:
            start_afresh(database, tenant="default", name=user)
        else:
            features = tuple(generator.normal(size=3).tolist())
            store.append(Feedback(user, "rating", features, 1.0, group=said[:900], key=mark))


@pytest.mark.slow
def test_thirty_histories_leave_no_mark_in_any_file(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erase, "AT_ONCE_BYTES", 0)  # all of a history at the end, for the time
    generator, left = np.random.default_rng(0), list[str]()
    others = [f"other{k}" for k in range(4)]
    for history in range(N_HISTORIES):
        name = f"mark{history}q{generator.integers(10**9)}x"
        live(database, generator, name=name, others=others, n=40)
        for user in [*others, name]:  # others said the name too; they go as well
            assert not erase_user(database, user=user).is_cleared
        if history % 10 == 0:
            assert found_in_files(database, name)
        clear_erased(database)
        assert all(receipt.is_cleared for receipt in list_receipts(database))
        left += found_in_files(database, name)
    assert left == []
