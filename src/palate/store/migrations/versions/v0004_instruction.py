"""What people want in their own words."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Go to this schema; people of before have said nothing in words."""
    op.add_column("people", sa.Column("instruction", sa.Text, nullable=True))


def downgrade() -> None:
    """Go back; people's own words are lost."""
    op.drop_column("people", "instruction")
