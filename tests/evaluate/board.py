"""Made-up results with known answers: three ways, four people, six prompts, two seeds."""

import numpy as np

from palate.evaluate.rows import AnswerRow, FactRow

PEOPLE = ("ana", "bo", "cy", "dee")
PREFERENCES = {
    "ana": {"short": 1.0},
    "bo": {"long": 1.0},
    "cy": {"short": 1.0},
    "dee": {"long": 1.0},
}
PROMPTS = tuple(f"prompt {k}" for k in range(6))
GAINS = {"base": 0.0, "soup": 0.2, "bespoke": 0.4}


def rows(ways=tuple(GAINS), *, seed=5):
    """A way adds its gain to the person's objective; prompts and noise move all ways alike."""
    draws = np.random.default_rng(seed)
    ease = {
        (person, prompt, number): draws.uniform(0.1, 0.5)
        for person in PEOPLE
        for prompt in PROMPTS
        for number in (0, 1)
    }
    return [
        AnswerRow(
            way=way,
            person=person,
            seed=number,
            prompt=prompt,
            copy=0,
            text=f"{way} says {prompt} to {person} {number}",
            rewards={
                name: value + GAINS.get(way, 0.0) * (name in PREFERENCES[person])
                for name in ("short", "long")
            },
            utility=value + GAINS.get(way, 0.0),
            coefficients={} if way == "base" else {next(iter(PREFERENCES[person])): 2.0},
            judge="made up",
            versions="none",
            n_tokens=10,
            n_drawn_tokens=10,
            n_rows=3.0 if way == "soup" else 1.0,
            log_ratio=GAINS.get(way, 0.0) * 10,
            is_well_formed=way != "soup" or prompt != PROMPTS[0],
        )
        for way in ways
        for (person, prompt, number), value in ease.items()
    ]


FACTS = (
    FactRow("bytes_per_person", "soup", 0, 20.0),
    FactRow("bytes_per_person", "soup", 1, 28.0),
)


def suite(ways=tuple(GAINS)):
    return {
        "ways": list(ways),
        "judge": {"kind": "gold"},
        "people": [{"name": name, "preference": PREFERENCES[name]} for name in PEOPLE],
    }
