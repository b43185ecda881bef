"""Receipts that say what remains of an erased user, and beliefs that say whether they settled."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

REMAINS = "what the database's files held of before; run `palate users receipts`"
SAID = {
    "users": ("name", "preference", "instruction"),
    "feedback": ("key", "features", "label", "group"),
    "beliefs": ("mean", "covariance"),
    "responses": ("prompt", "shown", "features", "coefficients", "tokens"),
}
ADDED = (
    ("beliefs", "is_converged", sa.Boolean, sa.true()),
    ("erasures", "n_feedback", sa.Integer, "0"),
    ("erasures", "n_responses", sa.Integer, "0"),
    ("erasures", "remains", sa.Text, REMAINS),
)


def upgrade() -> None:
    """Go to this schema; receipts of before say that the files were not cleared."""
    for table, name, kind, value in ADDED:
        op.add_column(table, sa.Column(name, kind, nullable=False, server_default=value))
    _sample(0)


def downgrade() -> None:
    """Go back; receipts no longer say what remains."""
    _sample(-1)
    for table, name, *_ in ADDED:
        op.drop_column(table, name)


def _sample(target: int) -> None:
    """How much of what users said PostgreSQL's planner copies into its own tables."""
    if op.get_bind().dialect.name == "postgresql":
        for table, columns in SAID.items():
            for column in columns:
                op.execute(f'ALTER TABLE {table} ALTER "{column}" SET STATISTICS {target}')
