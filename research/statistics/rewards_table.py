"""Rewards of many objectives and trunks side by side, next to what length alone would do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from palate.core.errors import InvalidInputError
from palate.core.files import dump_json, write_text_atomic
from palate.core.progress import progress_of
from palate.core.settings import Settings
from palate.rewards.card import RewardCard, load_card
from palate.rewards.held_out import Accuracy, HeldOut
from palate.rewards.job import fit_reward
from palate.rewards.pairs import PairSet, read_pairs
from palate.rewards.settings import TrunkSettings, trunk_settings
from research.command_line import IsJson, Seed, run


class TableJob(Settings):
    """Rewards of many objectives and trunks, to be compared in one table.

    Attributes:
        folder: Holds `NAME.train.jsonl` and `NAME.validation.jsonl` for every objective.
        objectives: Names.
        trunks: `light`, or folders or hub ids of Hugging Face models.
        out: Folder for the rewards, `TRUNK/NAME` each, and for `table.md`; rewards that are there
            are not trained again.
        group_by: Objective to the column whose equal values belong together.
        overrides: `NAME` of a trunk, the last part of its path, or `NAME/OBJECTIVE`, to `key=value`
            settings.
        seed: Of everything random.
    """

    folder: Path
    objectives: tuple[str, ...]
    trunks: tuple[str, ...] = ("light",)
    out: Path
    group_by: dict[str, str] = Field(default_factory=dict)
    overrides: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    seed: int = 0


Table = dict[str, dict[str, HeldOut]]


def compare_rewards(job: TableJob) -> Table:
    """Train what is missing, and set the accuracies side by side: objective to trunk to figures.

    Raises:
        InvalidInputError: a file is missing or wrong, two trunks share a name, or a reward in the
            way was trained otherwise.
        FormatError: a trunk cannot be given a reward head, or a folder in the way holds something
            else.
    """
    names = {trunk: Path(trunk).name for trunk in job.trunks}
    if len(set(names.values())) < len(names):
        raise InvalidInputError(
            f"Two of the trunks {', '.join(job.trunks)} have one name; rename a folder."
        )
    objectives = [f"/{objective}" for objective in job.objectives]
    known = {f"{name}{part}" for name in names.values() for part in ("", *objectives)}
    unknown = sorted(set(job.overrides) - known)
    if unknown:
        raise InvalidInputError(
            f"The settings are for {unknown[0]!r}, which is no trunk or TRUNK/OBJECTIVE of this "
            f"table; the trunks are {', '.join(names.values())}."
        )
    table: Table = {}
    for objective in job.objectives:
        train, validation = (
            read_pairs(
                job.folder / f"{objective}.{part}.jsonl",
                objective=objective,
                group_by=job.group_by.get(objective),
            )
            for part in ("train", "validation")
        )
        table[objective] = {}
        for trunk, name in names.items():
            folder = job.out / name / objective
            overrides = [
                *job.overrides.get(name, ()),
                *job.overrides.get(f"{name}/{objective}", ()),
            ]
            settings = trunk_settings(trunk, overrides=overrides)
            if not folder.exists():
                with progress_of(f"train {objective} on {name}") as on_step:
                    fit_reward(
                        train,
                        validation=validation,
                        settings=settings,
                        seed=job.seed,
                        on_step=on_step,
                    ).save(folder)
            card = load_card(folder)
            _require_same(card, folder=folder, settings=settings, train=train, seed=job.seed)
            table[objective][name] = card.held_out
    write_text_atomic(job.out / "table.md", markdown_table(table))
    return table


def markdown_table(table: Mapping[str, Mapping[str, HeldOut]]) -> str:
    """One row per objective: every trunk with its interval, beside the length baselines."""
    trunks = list(dict.fromkeys(name for row in table.values() for name in row))
    heads = ["objective", "pairs", *trunks, "longer wins", "shorter wins", "length only"]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for objective, row in table.items():
        first = next(iter(row.values()))
        lengths = (first.longer_wins, first.shorter_wins, first.length_only)
        cells = [objective, str(first.accuracy.n)]
        cells += [_cell(row[trunk].accuracy) if trunk in row else "" for trunk in trunks]
        cells += [f"{length.estimate:.3f}" for length in lengths]
        lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def _require_same(
    card: RewardCard, *, folder: Path, settings: TrunkSettings, train: PairSet, seed: int
) -> None:
    found = (card.train.hash, card.settings, card.seed)
    if found != (train.fingerprint, settings.model_dump(mode="json"), seed):
        raise InvalidInputError(
            f"The reward in {str(folder)!r} was trained on other pairs or with other settings; "
            "remove it, or give another folder."
        )


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(accuracy: Accuracy) -> str:
    return f"{accuracy.estimate:.3f} [{accuracy.low:.3f}, {accuracy.high:.3f}]"


def main(  # noqa: PLR0913  a command's options are its parameters
    folder: Annotated[Path, typer.Argument(help="With NAME.train.jsonl, NAME.validation.jsonl.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the rewards and the table.")],
    objectives: Annotated[list[str], typer.Option("--objective", help="A name; repeat.")],
    trunks: Annotated[
        list[str] | None, typer.Option("--trunk", help="`light`, or a Hugging Face model; repeat.")
    ] = None,
    group_by: Annotated[
        list[str] | None, typer.Option(metavar="OBJECTIVE=COLUMN", help="What belongs together.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="TRUNK[/OBJECTIVE]:KEY=VALUE", help="A setting."),
    ] = None,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """Train rewards for many objectives and trunks, and print their accuracies side by side."""
    settings: dict[str, tuple[str, ...]] = {}
    for override in overrides or ():
        trunk, assignment = _split(override, sign=":", option="--set")
        settings[trunk] = (*settings.get(trunk, ()), assignment)
    job = TableJob(
        folder=folder,
        objectives=tuple(objectives),
        trunks=tuple(trunks or ("light",)),
        out=out,
        group_by=dict(_split(item, sign="=", option="--group-by") for item in group_by or ()),
        overrides=settings,
        seed=seed,
    )
    found = compare_rewards(job)
    if is_json:
        plain = {
            objective: {trunk: held_out.model_dump(mode="json") for trunk, held_out in row.items()}
            for objective, row in found.items()
        }
        typer.echo(dump_json(plain))
    else:
        typer.echo(markdown_table(found), nl=False)


def _split(text: str, *, sign: str, option: str) -> tuple[str, str]:
    left, found, right = text.partition(sign)
    if not (left and found and right):
        raise InvalidInputError(
            f"The value {text!r} of {option} lacks a name, {sign!r} or what follows; see --help."
        )
    return left, right


if __name__ == "__main__":
    run(main)
