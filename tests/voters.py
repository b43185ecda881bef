"""Made-up voters of one topic, whose votes two tastes explain."""

import json
from pathlib import Path

import numpy as np


def write_voters(folder: Path) -> Path:
    """`items.jsonl` and `votes.jsonl` of 60 users and 24 items, as the replay reads."""
    generator = np.random.default_rng(0)
    liking = 1.5 * generator.normal(size=(60, 2)) @ generator.normal(size=(2, 24))
    votes = np.sign(liking + 0.5 * generator.normal(size=liking.shape)).astype(int)
    items = [{"conv": "t", "item": str(n)} for n in range(24)]
    users = [
        {"conv": "t", "user": str(p), "votes": {str(n): int(v) for n, v in enumerate(row)}}
        for p, row in enumerate(votes)
    ]
    for name, rows in (("items", items), ("votes", users)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder
