"""What a server needs: roles and ends of keys, stated preferences, fresh starts, token ids.

Keys of before are users' and never end. Going back, all of these are lost.
"""

from palate.store.statements import statements_of

revision, down_revision = "0003", "0002"
upgrade, downgrade = statements_of(__file__)
