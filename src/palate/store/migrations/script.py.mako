"""${message}."""

from palate.store.statements import statements_of

revision, down_revision = ${repr(up_revision)}, ${repr(down_revision)}
upgrade, downgrade = statements_of(__file__)
