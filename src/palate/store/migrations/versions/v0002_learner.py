"""Which learner a belief comes from; receipts of erasures."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Go to this schema; beliefs of before are of no known learner and get rebuilt when used."""
    op.add_column("beliefs", sa.Column("learner", sa.String(64), nullable=False, server_default=""))
    op.create_table(
        "erasures",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("n_rows", sa.Integer, nullable=False),
        sa.Column("erased_at", sa.Double, nullable=False),
    )


def downgrade() -> None:
    """Go back; receipts are lost, people, feedback, beliefs, responses and keys are kept."""
    op.drop_table("erasures")
    op.drop_column("beliefs", "learner")
