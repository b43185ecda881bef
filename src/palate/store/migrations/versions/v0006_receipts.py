"""Receipts that say what is left of an erased user, and beliefs that say whether they settled."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

REMAINS = "what the database's files held of before; run `palate users receipts`"
TEXTS = {
    "users": ("name", "preference", "instruction"),
    "feedback": ("key", "features", "label", "group"),
    "beliefs": ("mean", "covariance"),
    "responses": ("prompt", "shown", "features", "coefficients", "tokens"),
}


def upgrade() -> None:
    """Go to this schema; receipts of before say that the files were not cleared."""
    op.add_column(
        "beliefs", sa.Column("is_converged", sa.Boolean, nullable=False, server_default=sa.true())
    )
    for name in ("n_feedback", "n_responses"):
        op.add_column("erasures", sa.Column(name, sa.Integer, nullable=False, server_default="0"))
    op.add_column("erasures", sa.Column("remains", sa.Text, nullable=False, server_default=REMAINS))
    _keep_statistics(0)


def downgrade() -> None:
    """Go back; receipts no longer say what is left."""
    _keep_statistics(-1)
    for name in ("remains", "n_responses", "n_feedback"):
        op.drop_column("erasures", name)
    op.drop_column("beliefs", "is_converged")


def _keep_statistics(target: int) -> None:
    """How many samples of what users said PostgreSQL's planner keeps in its own tables."""
    if op.get_bind().dialect.name == "postgresql":
        for table, columns in TEXTS.items():
            for column in columns:
                op.execute(f'ALTER TABLE {table} ALTER "{column}" SET STATISTICS {target}')
