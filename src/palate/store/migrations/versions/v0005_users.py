"""Tables and columns in the words of the rest: a user, and the method that answered."""

from alembic import op

revision = "0005"
down_revision = "0004"

COLUMNS = (
    ("beliefs", "person", "user"),
    ("feedback", "person", "user"),
    ("responses", "person", "user"),
    ("responses", "way", "method"),
)


def upgrade() -> None:
    """Go to this schema; every row stays."""
    op.execute("ALTER TABLE people RENAME TO users")
    for table, old, new in COLUMNS:
        op.execute(f'ALTER TABLE {table} RENAME COLUMN "{old}" TO "{new}"')
    op.drop_index("ix_responses_person", "responses")
    op.create_index("ix_responses_user", "responses", ["user"])


def downgrade() -> None:
    """Go back; every row stays."""
    op.drop_index("ix_responses_user", "responses")
    for table, old, new in COLUMNS:
        op.execute(f'ALTER TABLE {table} RENAME COLUMN "{new}" TO "{old}"')
    op.create_index("ix_responses_person", "responses", ["person"])
    op.execute("ALTER TABLE users RENAME TO people")
