"""Which learner a belief comes from; receipts of erasures.

Beliefs of before are of no known learner and get rebuilt when used. Going back, receipts are lost;
people, feedback, beliefs, responses and keys are kept.
"""

from palate.store.statements import statements_of

revision, down_revision = "0002", "0001"
upgrade, downgrade = statements_of(__file__)
