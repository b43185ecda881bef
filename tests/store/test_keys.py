import pytest
from sqlalchemy import text

from palate.core.errors import InvalidInputError
from palate.store.database import Database
from palate.store.keys import find_key, issue_key, list_keys, revoke_key


def test_a_key_speaks_for_its_tenant_until_it_is_revoked(database: Database) -> None:
    key = issue_key(database, tenant="shop", label="web page", clock=lambda: 5.0)
    found = find_key(database, key)
    assert found is not None
    assert (found.tenant, found.label, found.created_at) == ("shop", "web page", 5.0)
    assert list_keys(database) == [found]
    revoke_key(database, prefix=found.prefix)
    assert find_key(database, key) is None
    assert [other.is_revoked for other in list_keys(database)] == [True]


def test_the_key_itself_is_not_in_the_database(database: Database) -> None:
    key = issue_key(database)
    with database.reading() as connection:
        rows = str(connection.execute(text("SELECT * FROM api_keys")).all())
    assert key.rsplit("_", 1)[1] not in rows


def test_wrong_keys_and_prefixes_are_refused(database: Database) -> None:
    key = issue_key(database)
    assert find_key(database, key[:-1]) is None
    assert find_key(database, "") is None
    with pytest.raises(InvalidInputError, match="prefix 'nope'"):
        revoke_key(database, prefix="nope")


def test_a_key_has_a_role_and_an_end(database: Database) -> None:
    plain = issue_key(database)
    short = issue_key(database, role="admin", lasts_seconds=60.0, clock=lambda: 1000.0)
    user = find_key(database, plain)
    admin = find_key(database, short, clock=lambda: 1059.0)
    assert user is not None
    assert admin is not None
    assert (user.role, user.expires_at) == ("user", None)
    assert (admin.role, admin.expires_at) == ("admin", 1060.0)
    assert find_key(database, short, clock=lambda: 1060.0) is None
    with pytest.raises(InvalidInputError, match="more than 0"):
        issue_key(database, lasts_seconds=0.0)


def test_a_key_that_has_ended_stays_ended_where_the_clock_is_set_back(database: Database) -> None:
    seen, unseen = (issue_key(database, lasts_seconds=60.0, clock=lambda: 1000.0) for _ in range(2))
    later = issue_key(database, lasts_seconds=600.0, clock=lambda: 1000.0)
    assert find_key(database, seen, clock=lambda: 1061.0) is None
    for key in (seen, unseen):
        assert find_key(database, key, clock=lambda: 1001.0) is None
    assert find_key(database, later, clock=lambda: 1001.0) is not None
