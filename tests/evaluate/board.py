"""Made-up results with known answers: three methods, four users, six prompts, two seeds."""

import numpy as np

from palate.evaluate.catalogue import parse_name
from palate.evaluate.rows import AnswerRow, FactRow

USERS = ("ana", "bo", "cy", "dee")
PREFERENCES = {
    "ana": {"short": 1.0},
    "bo": {"long": 1.0},
    "cy": {"short": 1.0},
    "dee": {"long": 1.0},
}
SHAPES = {"ana": "even", "bo": "even", "cy": "two", "dee": "two"}
PROMPTS = tuple(f"prompt {k}" for k in range(6))
GAINS = {"base": 0.0, "soup": 0.2, "bespoke": 0.4}
PASSES = {"output-soup": 3.0}


def rows(methods=tuple(GAINS), *, seed=5, gains=GAINS):
    """A method adds its gain to the user's objective; prompts and noise move all methods alike."""
    draws = np.random.default_rng(seed)
    ease = {
        (user, prompt, number): draws.uniform(0.1, 0.5)
        for user in USERS
        for prompt in PROMPTS
        for number in (0, 1)
    }
    return [
        AnswerRow(
            method=method,
            user=user,
            seed=number,
            prompt=prompt,
            copy=0,
            text=f"{method} says {prompt} to {user} {number}",
            rewards={
                name: value + gains.get(method, 0.0) * (name in PREFERENCES[user])
                for name in ("short", "long")
            },
            utility=value + gains.get(method, 0.0),
            shape=SHAPES[user],
            taken=parse_name(method).method,
            n_passes=PASSES.get(method, 1.0) * (parse_name(method).n_candidates or 1),
            n_candidates=parse_name(method).n_candidates or 1,
            coefficients={} if method == "base" else {next(iter(PREFERENCES[user])): 2.0},
            judge="made up",
            versions="none",
            n_tokens=10,
            log_ratio=gains.get(method, 0.0) * 10,
            is_well_formed=method != "soup" or prompt != PROMPTS[0],
        )
        for method in methods
        for (user, prompt, number), value in ease.items()
    ]


FACTS = (
    FactRow("bytes_per_user", "soup", 0, 20.0),
    FactRow("bytes_per_user", "soup", 1, 28.0),
)


def suite(methods=tuple(GAINS)):
    return {
        "methods": list(methods),
        "judge": {"kind": "gold"},
        "users": [{"name": name, "preference": PREFERENCES[name]} for name in USERS],
    }
