"""Tables and columns in the words of the rest: a user, and the method that answered.

Every row stays, also going back.
"""

from palate.store.statements import statements_of

revision, down_revision = "0005", "0004"
upgrade, downgrade = statements_of(__file__)
