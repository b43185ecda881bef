"""People, beliefs, feedback that is only ever appended, responses, keys, tenants.

Feedback may be added and, with its person, erased, never changed.
"""

from palate.store.statements import statements_of

revision, down_revision = "0001", None
upgrade, downgrade = statements_of(__file__)
