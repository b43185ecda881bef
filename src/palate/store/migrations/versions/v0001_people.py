"""People, beliefs, feedback that is only ever appended, responses, keys, tenants."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Go to this schema."""
    op.create_table(
        "tenants",
        sa.Column("id", sa.String(64), primary_key=True),
        *_required(created_at=sa.Double),
    )
    op.create_table(
        "people",
        sa.Column("id", KEY, primary_key=True, autoincrement=True),
        sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        *_required(created_at=sa.Double),
        sa.UniqueConstraint("tenant", "name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "beliefs",
        _person(is_key=True),
        *_required(mean=sa.LargeBinary, covariance=sa.LargeBinary),
        *_required(n_observations=sa.Integer, gain=sa.Double),
    )
    op.create_table(
        "feedback",
        _person(is_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key", sa.Text),
        *_required(kind=sa.String(16), features=sa.LargeBinary, label=sa.Double, group=sa.Text),
        *_required(created_at=sa.Double),
        sa.UniqueConstraint("person", "key"),
    )
    op.create_table(
        "responses",
        sa.Column("id", sa.String(64), primary_key=True),
        _person(is_key=False),
        *_required(prompt=sa.Text, shown=sa.Text, features=sa.Text, way=sa.String(64)),
        *_required(coefficients=sa.Text, seed=sa.BigInteger, created_at=sa.Double),
    )
    op.create_index("ix_responses_person", "responses", ["person"])
    op.create_table(
        "api_keys",
        sa.Column("prefix", sa.String(16), primary_key=True),
        sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        *_required(created_at=sa.Double, is_revoked=sa.Boolean),
    )
    _forbid_changes_of_feedback()


def downgrade() -> None:
    """Go back to an empty database."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER feedback_append_only ON feedback")
        op.execute("DROP FUNCTION feedback_append_only()")
    for table in ("api_keys", "responses", "feedback", "beliefs", "people", "tenants"):
        op.drop_table(table)


def _required(**kinds: Any) -> "list[sa.Column[Any]]":
    """Columns that always hold a value."""
    return [sa.Column(name, kind, nullable=False) for name, kind in kinds.items()]


def _person(*, is_key: bool) -> "sa.Column[int]":
    owner = sa.ForeignKey("people.id", ondelete="CASCADE")
    return sa.Column("person", KEY, owner, primary_key=is_key, nullable=False, autoincrement=False)


def _forbid_changes_of_feedback() -> None:
    """Feedback may be added and, with its person, erased; it is never changed."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION feedback_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'feedback is only ever appended'; END $$"
        )
        op.execute(
            "CREATE TRIGGER feedback_append_only BEFORE UPDATE ON feedback "
            "FOR EACH ROW EXECUTE FUNCTION feedback_append_only()"
        )
    else:
        op.execute(
            "CREATE TRIGGER feedback_append_only BEFORE UPDATE ON feedback "
            "BEGIN SELECT RAISE(ABORT, 'feedback is only ever appended'); END"
        )
