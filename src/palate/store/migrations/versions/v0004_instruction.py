"""What people want in their own words; people of before have said nothing so.

Going back, their words are lost.
"""

from palate.store.statements import statements_of

revision, down_revision = "0004", "0003"
upgrade, downgrade = statements_of(__file__)
