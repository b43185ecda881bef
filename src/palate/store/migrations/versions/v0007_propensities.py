"""How probable each answer was when it was shown."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Go to this schema; no answer's probability is known."""
    op.add_column("responses", sa.Column("log_probs", sa.Text, nullable=True))
    refusal = "BEGIN SELECT RAISE(ABORT, 'propensities are only ever appended'); END"
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE responses ALTER log_probs SET STATISTICS 0")
        op.execute(
            "CREATE FUNCTION propensities() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'propensities are only ever appended'; END $$"
        )
        refusal = "FOR EACH ROW EXECUTE FUNCTION propensities()"
    op.execute(f"CREATE TRIGGER propensities BEFORE UPDATE OF log_probs ON responses {refusal}")


def downgrade() -> None:
    """Go back; probabilities are lost."""
    is_postgres = op.get_bind().dialect.name == "postgresql"
    op.execute("DROP TRIGGER propensities" + " ON responses" * is_postgres)
    if is_postgres:
        op.execute("DROP FUNCTION propensities()")
    op.drop_column("responses", "log_probs")
