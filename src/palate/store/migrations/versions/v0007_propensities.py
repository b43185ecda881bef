"""How probable each answer was when it was shown, which is only ever appended.

Of answers of before it is not known. Going back, it is lost.
"""

from palate.store.statements import statements_of

revision, down_revision = "0007", "0006"
upgrade, downgrade = statements_of(__file__)
