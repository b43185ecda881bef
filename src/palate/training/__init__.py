"""One adapter per anchor, trained on the base's own answers or on users' pairs, through TRL.

Read `train.py` first: one expert by DPO, REBEL or GRPO. `rollouts.py` samples and scores the base's
answers, `anchors.py` and `placement.py` say which experts, and `job.py` holds the settings.
"""
