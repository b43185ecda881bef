r"""What the board says by judges that share no pair with the teacher of either pole.

    python -m libraries.other_judges out/board --library smollm2-135m \
        --pairs out/smollm2-data/simple.jsonl=elementary,expert \
        --pairs out/smollm2-data/polite.jsonl=friendly,unfriendly --out out/other-judges.json

A library that was built before opposites shared one split judges an objective by a reward fitted on
pairs of which half taught the opposite. Here every judge is fitted again on the pairs that taught
neither, a quarter of them, and the stored answers are judged again; measures of form stay. Beside
each difference stands what the stored rows say.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from libraries.halves import select, taught_half
from palate import Library
from palate.build.library import stored_settings
from palate.core.files import write_json
from palate.core.progress import progress_of
from palate.core.seeds import derive_seed
from palate.rewards.job import fit_reward
from palate.rewards.pairs import PairSet, read_pairs
from palate.rewards.reward import LearnedReward, calibrate, load_reward
from palate.rewards.settings import trunk_settings
from palate.training.rollouts import read_rollouts
from research.board.judges import HELD_BACK
from research.board.rows import ROWS, Row, load
from research.board.tables import Tables, alone, tables_of
from research.board.users import USERS, load_users
from research.command_line import print_result

METHODS = (
    *("prompt", "prompt:instruction", "soup", "prompted-soup", "auto", "auto:instruction"),
    *("soup@10", "soup@100", "auto@10", "prompt+best-of-4", "auto+4-passes"),
)
PAIRS = (
    *(("auto", "prompt"), ("prompted-soup", "prompt"), ("auto:instruction", "prompt:instruction")),
    *(("auto+4-passes", "prompt+best-of-4"), ("soup@100", "prompt:instruction")),
)
N_CALIBRATED = 400  # of the base's answers
BATCH = 256  # answers that are judged together


def main() -> None:
    """Fit, judge, and print differences by either judges."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("board", type=Path)
    parser.add_argument("--library", default="smollm2-135m")
    parser.add_argument("--pairs", action="append", required=True, metavar="FILE=one,other")
    parser.add_argument("--out", type=Path, default=None, help="JSON file")
    options = parser.parse_args()
    library = Library.load(options.library)
    judges: dict[str, LearnedReward] = {}
    for text in options.pairs:
        path, _, names = text.partition("=")
        judges |= clean_judges(library, Path(path), names.split(","))
    users = load_users(USERS, objectives=library.manifest.objective_names, n=24)
    rows = [
        row
        for row in load(options.board / ROWS, Row)
        if row.method in ("base", *METHODS) and row.turns == 0 and row.seed == 0 and not row.library
    ]
    facts = {
        "n_rows": len(rows),
        "judges": {name: facts_of(library, name, judge) for name, judge in judges.items()},
        "stored": differences(tables_of(rows, users)),
        "clean": differences(tables_of(judged_again(rows, judges), users)),
    }
    print_result(facts, is_json=True)
    if options.out is not None:
        write_json(options.out, facts)


def clean_judges(library: Library, path: Path, names: Sequence[str]) -> dict[str, LearnedReward]:
    """Of one objective and its opposite, on the pairs that taught neither.

    Raises:
        InvalidInputError: the file's pairs are not those that taught the library.
    """
    run = stored_settings(library.files)
    by_name = {one.name: one.reward for one in run.objectives}
    sets: dict[str, PairSet] = {}
    taught: set[frozenset[str]] = set()
    for name in names:
        source = by_name[name]
        swapped = bool(source and source.is_swapped)
        sets[name] = read_pairs(path, objective=name, is_swapped=swapped)
        own = taught_half(sets[name], library.files)
        taught |= {frozenset((pair.chosen, pair.rejected)) for pair in own.pairs}
    answers = read_rollouts(
        library.files.rollouts_path, objectives=library.manifest.objective_names
    )
    texts = [row.completion for row in answers][:N_CALIBRATED]
    prompts = [row.prompt for row in answers][:N_CALIBRATED]
    judges: dict[str, LearnedReward] = {}
    for name, every in sets.items():
        source = by_name[name]
        assert source is not None  # noqa: S101  its pairs were read
        is_clean = [frozenset((p.chosen, p.rejected)) not in taught for p in every.pairs]
        sides = [select(every, [own == side for own in is_clean]) for side in (True, False)]
        one = fit_reward(
            sides[0],
            validation=sides[1],
            settings=trunk_settings(source.judge_trunk or source.trunk),
            seed=derive_seed(run.seed, "other judge", name),
        )
        card = one.card.model_copy(update={"whole_sentences": source.whole_sentences})
        judges[name] = calibrate(
            replace(one, card=card), prompts=prompts, answers=texts, kind=source.scale
        )
    return judges


def facts_of(library: Library, name: str, judge: LearnedReward) -> dict[str, Any]:
    """Numbers of pairs, and accuracy on pairs that the judge was not fitted to."""
    before = load_reward(library.files.reward_folder(name) / HELD_BACK).card
    return {
        "n": judge.card.train.n,
        "n_before": before.train.n,
        "accuracy": judge.card.held_out.accuracy.model_dump(),
    }


def judged_again(rows: Sequence[Row], judges: dict[str, LearnedReward]) -> list[Row]:
    """The rows with the judges' scores of their texts in place of the stored ones."""
    texts = list(dict.fromkeys(row.text for row in rows))
    scores: dict[str, dict[str, float]] = {text: {} for text in texts}
    with progress_of("answers that are judged again") as report:
        for start in range(0, len(texts), BATCH):
            some = texts[start : start + BATCH]
            for name, judge in judges.items():
                for text, score in zip(some, judge.score([""] * len(some), some), strict=True):
                    scores[text][name] = float(np.clip(score, 0.0, 1.0))
            report(start + len(some), len(texts))
    return [replace(row, meaning={**row.meaning, **scores[row.text]}) for row in rows]


def differences(tables: Tables) -> dict[str, Any]:
    """Gains over the base, and pairs of methods, on single prompts."""
    pairs = [*((name, "base") for name in METHODS), *PAIRS]
    found = {f"{a} over {b}": tables.difference(a, b, alone) for a, b in pairs}
    return {name: one.interval.to_json() for name, one in found.items() if one is not None}


if __name__ == "__main__":
    main()
