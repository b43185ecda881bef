r"""A run file for a further seed of a library, taught by the same pairs as the first.

    python -m libraries.halves libraries/smollm2-135m.yaml --library smollm2-135m --seed 1 \
        --out out/seed1
    palate build out/seed1/run.yaml --out out/smollm2-135m-seed1
    python -m research.board --library smollm2-135m --library out/smollm2-135m-seed1 ...

The board judges every library by what the first held back, so it refuses one whose teachers saw any
of it. Each objective's half that taught and half that was held back become files, `pairs` and
`validation` of the new run file; `--set` of `palate build` changes the rest.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from palate.build.reward_sources import split_groups
from palate.core.errors import InvalidInputError
from palate.core.files import read_text, write_jsonl, write_text_atomic
from palate.core.seeds import generator_for
from palate.core.settings import parsed_yaml
from palate.library.folder import LibraryFolder
from palate.library.shipped import library_folder
from palate.rewards.pairs import PairSet, read_pairs
from palate.rewards.reward import load_reward

RUN = "run.yaml"


def main() -> None:
    """Write the halves and the run file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="the first library's run file")
    parser.add_argument("--library", required=True, help="the first library")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the files")
    options = parser.parse_args()
    files = LibraryFolder.open(library_folder(options.library))
    run: Any = parsed_yaml(read_text(options.run, what="run file"), what="run file")
    for objective in run["objectives"]:
        name, source = objective["name"], objective["reward"]
        if "pairs" not in source:
            continue
        swapped = bool(source.get("is_swapped"))
        pairs = read_pairs(Path(source["pairs"]), objective=name, is_swapped=swapped)
        own = taught_half(pairs, files)
        taught = set(own.groups)
        other = select(pairs, [group not in taught for group in pairs.groups])
        for key, side in (("pairs", own), ("validation", other)):
            path = options.out / f"{name}-{key}.jsonl"
            write_jsonl(path, rows_of(side, is_swapped=swapped))
            source[key] = str(path)
    text = yaml.safe_dump({**run, "seed": options.seed}, sort_keys=False)
    write_text_atomic(options.out / RUN, text)


def taught_half(pairs: PairSet, files: LibraryFolder) -> PairSet:
    """The half of a file's pairs that taught the objective's reward, in the library.

    Raises:
        InvalidInputError: the library's reward learned from other pairs.
    """
    wanted = load_reward(files.reward_folder(pairs.objective)).card.train.hash
    halves = (split_groups(pairs)[0], old_half(pairs, seed=int(files.manifest.config["seed"])))
    for half in halves:
        if half.fingerprint == wanted:
            return half
    raise InvalidInputError(
        f"The pairs of {pairs.source!r} are not those that taught {pairs.objective!r} in "
        f"{files.folder.name!r}; give the file that it was built from."
    )


def old_half(pairs: PairSet, *, seed: int) -> PairSet:
    """The half that taught in libraries that were split by seed and the objective's name."""
    groups = sorted(set(pairs.groups))
    order = generator_for(seed, "split", pairs.objective).permutation(len(groups))
    held_out = {groups[index] for index in order[: max(1, round(len(groups) / 2))]}
    return select(pairs, [group not in held_out for group in pairs.groups])


def select(pairs: PairSet, is_kept: Sequence[bool]) -> PairSet:
    """The pairs that are kept."""
    places = np.flatnonzero(is_kept)
    return replace(
        pairs,
        pairs=tuple(pairs.pairs[k] for k in places),
        groups=tuple(pairs.groups[k] for k in places),
    )


def rows_of(pairs: PairSet, *, is_swapped: bool) -> list[dict[str, str]]:
    """The pairs as a file holds them, before it is read swapped."""
    names = ("rejected", "chosen") if is_swapped else ("chosen", "rejected")
    return [
        {"prompt": pair.prompt, names[0]: pair.chosen, names[1]: pair.rejected}
        for pair in pairs.pairs
    ]


if __name__ == "__main__":
    main()
