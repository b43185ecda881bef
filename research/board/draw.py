"""Users drawn from the spread of real voters' factors, and of the shapes that averages hide.

    python -m research.board.draw ../shared/data/people/polis --out users.jsonl

Data: the open data of Polis (CC BY 4.0, compdemocracy/openData), no part of this repository.

The votes of the largest topic are factored (`research.preferences.factors`). A user's position on
three axes (simple against specialist, short against long, warm against cold) is that of a random
voter on the three strongest factors, in standard deviations, plus a normal step of 0.3: what is
written are draws from the spread, and nobody's own votes. The sign picks the pole, the size weighs.

Shapes, of the same positions: `drawn` as they are; `sparse`, the strongest axis alone; `uneven`,
70, 20 and 10 % in order; `conflicting`, both poles of the strongest axis and some of the next, or a
weight against a pole that sliders cannot state; `indifferent`, all six objectives nearly alike.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from jaxtyping import Float
from numpy import ndarray

from palate.core.files import write_jsonl
from palate.core.seeds import generator_for
from research.board.users import USERS
from research.command_line import DataFolder, Seed, run
from research.preferences.factors import fit_coefficients, fit_factors
from research.preferences.votes import load_votes

TOPIC = "american-assembly.bowling-green"
LEAST_VOTES = 60
STEP = 0.3  # standard deviations
AXES = (("elementary", "expert"), ("concise", "informative"), ("friendly", "unfriendly"))
OBJECTIVES = tuple(name for axis in AXES for name in axis)
CYCLE = ("drawn", "uneven", "sparse", "drawn", "conflicting", "indifferent")
SPOKEN = 0.3  # of the largest share, from which an objective is put into words
BANK: dict[str, dict[str, tuple[str, str]]] = {
    "elementary": {
        "instruction": ("Use plain, everyday words.", "Explain it so that a child could follow."),
        "profile": (
            "I left school early and English is my second language.",
            "I am nine years old and I love asking questions.",
        ),
        "vague": ("I am new to all of this.", "This stuff usually goes over my head."),
    },
    "expert": {
        "instruction": (
            "Use the precise terms of the field.",
            "Write for a specialist and assume that I know the basics.",
        ),
        "profile": (
            "I have been an engineer for twenty years and read papers for fun.",
            "I teach this at a university.",
        ),
        "vague": ("I know my way around here.", "Do not talk down to me."),
    },
    "concise": {
        "instruction": ("Keep it to a sentence or two.", "Be brief."),
        "profile": (
            "I read answers on my watch between meetings.",
            "I am a nurse and have half a minute between patients.",
        ),
        "vague": ("I am in a hurry.", "My attention wanders quickly."),
    },
    "informative": {
        "instruction": (
            "Go into detail, with facts and examples.",
            "Be thorough and leave nothing out.",
        ),
        "profile": (
            "I write reports and collect every fact and number that I can get.",
            "I am preparing for an examination and want to know all about a topic.",
        ),
        "vague": ("I have all evening.", "I am the curious kind."),
    },
    "friendly": {
        "instruction": ("Be warm and encouraging.", "Please be kind and cheerful."),
        "profile": (
            "I live alone and enjoy a friendly chat.",
            "I get discouraged easily and like a pat on the back.",
        ),
        "vague": ("It has been a hard week.", "Be nice, would you?"),
    },
    "unfriendly": {
        "instruction": ("Be blunt and skip the courtesies.", "Be curt, even rude."),
        "profile": (
            "I grew up among soldiers and cannot stand flattery.",
            "Sweet talk makes me suspicious; I like it when somebody snaps at me.",
        ),
        "vague": ("No sugar on it.", "I have a thick skin."),
    },
}
NOTHING = {
    "instruction": "Answer as you like.",
    "profile": "I am a user like any other and have no particular habits.",
    "vague": "Whatever.",
}


def positions(data: Path, *, n: int, seed: int) -> Float[ndarray, "users axes"]:
    """`[n, 3]`: positions of drawn users on the axes, in standard deviations.

    Raises:
        InvalidInputError: the data folder lacks a file or the topic.
    """
    (table,) = load_votes(data, topics=(TOPIC,))
    votes = table.votes[table.seen.sum(axis=1) >= LEAST_VOTES]
    factors = fit_factors(votes, generator=generator_for(seed, "board factors"))
    coefficients = fit_coefficients(factors, votes)[0]
    strongest = np.argsort(factors.relevance)[: len(AXES)]
    spread = coefficients[:, strongest]
    spread = (spread - spread.mean(axis=0)) / spread.std(axis=0)
    generator = generator_for(seed, "board users")
    voters = generator.integers(len(spread), size=n)
    return spread[voters] + STEP * generator.standard_normal((n, len(AXES)))


def weights(position: Float[ndarray, " axes"], *, shape: str, is_signed: bool) -> dict[str, float]:
    """The truth of a user at `[axes]` of this shape; `is_signed` picks the signed conflict."""
    order = np.argsort(-np.abs(position)).tolist()
    near = [AXES[a][0] if position[a] > 0 else AXES[a][1] for a in order]
    far = [AXES[a][1] if position[a] > 0 else AXES[a][0] for a in order]
    sizes = np.abs(position)[order]
    if shape == "sparse":
        return {near[0]: 1.0}
    if shape == "uneven":
        return dict(zip(near, (0.7, 0.2, 0.1), strict=True))
    if shape == "conflicting":
        if is_signed:
            return {near[0]: 0.4, near[1]: 0.3, far[2]: -0.3}
        return {near[0]: 0.35, far[0]: 0.35, near[1]: 0.3}
    if shape == "indifferent":
        lean = {name: 0.05 if name in near else 0.0 for name in OBJECTIVES}
        return {name: (1.0 - 0.15) / len(OBJECTIVES) + lean[name] for name in OBJECTIVES}
    return dict(zip(near, (sizes / sizes.sum()).tolist(), strict=True))


def stated(truth: Mapping[str, float], *, is_indifferent: bool) -> dict[str, float]:
    """The truth as sliders hold it: in tenths, nothing below zero; all alike where indifferent."""
    if is_indifferent:
        return dict.fromkeys(OBJECTIVES, 1.0 / len(OBJECTIVES))
    wanted = {name: value for name, value in truth.items() if value > 0}
    total = sum(wanted.values())
    tenths = {name: int(10 * value / total + 1e-9) for name, value in wanted.items()}
    rests = sorted(wanted, key=lambda name: tenths[name] - 10 * wanted[name] / total)
    for name in rests[: 10 - sum(tenths.values())]:
        tenths[name] += 1
    return {name: value / 10 for name, value in tenths.items() if value}


def wordings(preference: Mapping[str, float], *, variants: Sequence[int]) -> dict[str, str]:
    """The three wordings of a stated preference; `[axes]` variants of the phrases, 0 or 1."""
    if len(preference) == len(OBJECTIVES):
        return dict(NOTHING)
    largest = max(preference.values())
    spoken = [name for name, share in preference.items() if share >= SPOKEN * largest]
    spoken.sort(key=lambda name: -preference[name])
    variant = {name: variants[OBJECTIVES.index(name) // 2] for name in spoken}
    return {kind: " ".join(BANK[name][kind][variant[name]] for name in spoken) for kind in NOTHING}


def draw_users(data: Path, *, n: int, seed: int) -> list[dict[str, Any]]:
    """`n` users as lines of the file."""
    generator = generator_for(seed, "board wordings")
    rows: list[dict[str, Any]] = []
    for place, position in enumerate(positions(data, n=n, seed=seed)):
        shape = CYCLE[place % len(CYCLE)]
        truth = weights(position, shape=shape, is_signed=place // len(CYCLE) % 2 == 1)
        truth = {name: round(value, 6) for name, value in truth.items()}
        preference = stated(truth, is_indifferent=shape == "indifferent")
        rows.append(
            {
                "name": f"u{place + 1:03d}-{shape}",
                "shape": shape,
                "truth": truth,
                "preference": preference,
                "wordings": wordings(
                    preference, variants=generator.integers(2, size=len(AXES)).tolist()
                ),
            }
        )
    return rows


def main(
    data_dir: DataFolder,
    *,
    n: Annotated[int, typer.Option(min=1, help="Number of users.")] = 200,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="File of users, JSON lines.")] = USERS,
) -> None:
    """Users of the board from the spread of voters' factors; writes the file anew."""
    rows = draw_users(data_dir, n=n, seed=seed)
    write_jsonl(out, rows)
    typer.echo(f"{len(rows)} users in {out}")


if __name__ == "__main__":
    run(main)
