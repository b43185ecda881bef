"""Which two numbers let users' own words be read best: a grid on 40 sentences with a truth by hand.

    python -m libraries.fit_words smollm2-135m

`palate.library.words` compares a text's clauses with the sentences of an objective's poles; from
which similarity a clause speaks of a pole, and how sharply, is chosen here: the pair with the
least surprise of the truth (mean of minus the log of what the truth's case is given, over
sentences and axes, nats), in the mean with the objectives' phrases and without any. The 60
sentences of `python -m research.preferences.words` have no part in it; beside each pair stands
their surprise, and before all that of who knows only how often each case occurs.
"""

import argparse
import itertools
from dataclasses import replace
from typing import Any

import numpy as np

from palate.core.files import read_jsonl
from palate.core.types import Objective
from palate.library.folder import LibraryFolder
from palate.library.shipped import library_folder
from palate.library.words import SILENT, WIDTH, case_chances
from research.command_line import print_result
from research.preferences.words import AXES, FOLDER

FILES = ("sentences_fit.jsonl", "sentences.jsonl")
LEAST, WIDTHS = (0.15, 0.2, 0.25, 0.3, 0.35), (0.025, 0.03, 0.035, 0.04, 0.05)


def main() -> None:
    """Print the surprise of every pair, the best first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("library", nargs="?", default="smollm2-135m")
    options = parser.parse_args()
    manifest = LibraryFolder.open(library_folder(options.library)).manifest
    plain = tuple(replace(one, phrases="") for one in manifest.objectives)
    fitted, others = (read_jsonl(FOLDER / name, what="file of sentences") for name in FILES)
    rows = [
        {
            "least": least,
            "width": width,
            "with phrases": surprise(fitted, manifest.objectives, least=least, width=width),
            "without": surprise(fitted, plain, least=least, width=width),
            "the 60": surprise(others, manifest.objectives, least=least, width=width),
            "is used": (least, width) == (SILENT, WIDTH),
        }
        for least, width in itertools.product(LEAST, WIDTHS)
    ]
    rows.sort(key=lambda row: row["with phrases"] + row["without"])
    cases = np.array([[row[axis] for axis in AXES] for row in others])
    shares = np.array([(cases == case).mean() for case in (-1, 0, 1)])
    print_result(
        {"pairs": rows, "of shares alone": -(shares * np.log(shares)).sum()}, is_json=False
    )


def surprise(
    rows: list[dict[str, Any]], objectives: tuple[Objective, ...], *, least: float, width: float
) -> float:
    """Of the truth of these sentences, nats."""
    places = [[one.name for one in objectives].index(name) for name in AXES.values()]
    each: list[float] = []
    for row in rows:
        chances, _ = case_chances(row["text"], objectives, least=least, width=width)
        each += [chances[place, row[axis] + 1] for place, axis in zip(places, AXES, strict=True)]
    return float(-np.log(np.maximum(each, 1e-6)).mean())


if __name__ == "__main__":
    main()
