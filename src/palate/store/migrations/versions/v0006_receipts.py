"""Receipts that say what remains of an erased user, and beliefs that say whether they settled.

Receipts of before say that the files were not cleared; going back, none says what remains. Of what
users said, PostgreSQL's planner copies nothing into its own tables (statistics of 0).
"""

from palate.store.statements import statements_of

revision, down_revision = "0006", "0005"
upgrade, downgrade = statements_of(__file__)
