"""What a server needs: roles and ends of keys, stated preferences, fresh starts, token ids."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Go to this schema; keys of before are users' and never end."""
    op.add_column(
        "api_keys", sa.Column("role", sa.String(16), nullable=False, server_default="user")
    )
    op.add_column("api_keys", sa.Column("expires_at", sa.Double, nullable=True))
    op.add_column("people", sa.Column("preference", sa.Text, nullable=True))
    op.add_column("people", sa.Column("forgotten", sa.Integer, nullable=False, server_default="0"))
    op.add_column("responses", sa.Column("tokens", sa.Text, nullable=False, server_default="[]"))
    op.create_table(
        "marks",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """Go back; roles, ends of keys, stated preferences and fresh starts are lost."""
    op.drop_table("marks")
    op.drop_column("responses", "tokens")
    op.drop_column("people", "forgotten")
    op.drop_column("people", "preference")
    op.drop_column("api_keys", "expires_at")
    op.drop_column("api_keys", "role")
