"""Which two numbers let users' own words be read best: a grid on 40 sentences with a truth by hand.

    python -m libraries.fit_words smollm2-135m

`palate.library.words` compares a text's clauses with the sentences of an objective's poles; from
which similarity a clause speaks of a pole, and how sharply, is chosen here: the pair with the
least surprise of the truth, in the mean with the objectives' phrases and without any. The 60
sentences of `python -m research.preferences.words` have no part in it.
"""

import argparse
import itertools
from dataclasses import replace

import numpy as np

from palate import Library
from palate.core.files import read_jsonl
from palate.core.types import Objective
from palate.library.words import SILENT, WIDTH, case_chances
from research.command_line import print_result
from research.preferences.words import AXES, FOLDER

LEAST, WIDTHS = (0.15, 0.2, 0.25, 0.3, 0.35), (0.025, 0.03, 0.035, 0.04, 0.05)


def main() -> None:
    """Print the surprise of every pair, the best first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("library", nargs="?", default="smollm2-135m")
    options = parser.parse_args()
    objectives = Library.load(options.library, dtype="bfloat16").manifest.objectives
    plain = tuple(replace(one, phrases="") for one in objectives)
    rows = [
        {
            "least": least,
            "width": width,
            "with phrases": surprise(objectives, least=least, width=width),
            "without": surprise(plain, least=least, width=width),
            "is used": (least, width) == (SILENT, WIDTH),
        }
        for least, width in itertools.product(LEAST, WIDTHS)
    ]
    rows.sort(key=lambda row: row["with phrases"] + row["without"])
    print_result({"pairs": rows}, is_json=False)


def surprise(objectives: tuple[Objective, ...], *, least: float, width: float) -> float:
    """Mean of minus the log of what the truth's case is given, over sentences and axes, nats."""
    places = [[one.name for one in objectives].index(name) for name in AXES.values()]
    each: list[float] = []
    for row in read_jsonl(FOLDER / "sentences_fit.jsonl", what="file of sentences"):
        chances, _ = case_chances(row["text"], objectives, least=least, width=width)
        each += [chances[place, row[axis] + 1] for place, axis in zip(places, AXES, strict=True)]
    return float(-np.log(np.maximum(each, 1e-6)).mean())


if __name__ == "__main__":
    main()
