"""What a server needs: roles and ends of keys, stated preferences, fresh starts, token ids."""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Go to this schema; keys of before are users' and never end."""
    statements = Path(__file__).with_suffix(f".{op.get_bind().dialect.name}.sql").read_text()
    for statement in statements.split("\n\n"):
        op.execute(statement)


def downgrade() -> None:
    """Go back; roles, ends of keys, stated preferences and fresh starts are lost."""
    op.drop_table("marks")
    op.drop_column("responses", "tokens")
    op.drop_column("people", "forgotten")
    op.drop_column("people", "preference")
    op.drop_column("api_keys", "expires_at")
    op.drop_column("api_keys", "role")
