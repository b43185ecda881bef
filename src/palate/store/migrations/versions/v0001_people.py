"""People, beliefs, feedback that is only ever appended, responses, keys, tenants.

Each database has its statements in a file beside this one, with an empty line between two.
"""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Go to this schema; feedback may be added and, with its person, erased, never changed."""
    statements = Path(__file__).with_suffix(f".{op.get_bind().dialect.name}.sql").read_text()
    for statement in statements.split("\n\n"):
        op.execute(statement)


def downgrade() -> None:
    """Go back to an empty database."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER feedback_append_only ON feedback")
        op.execute("DROP FUNCTION feedback_append_only()")
    for table in ("api_keys", "responses", "feedback", "beliefs", "people", "tenants"):
        op.drop_table(table)
