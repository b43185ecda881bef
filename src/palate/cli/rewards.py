"""`palate rewards`: train a reward on pairs, score texts with it, compare many."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.parse import IsJson
from palate.core.errors import InvalidInputError
from palate.core.files import dump_json

app = typer.Typer(no_args_is_help=True, help="Rewards: from people's pairs to numbers in [0, 1].")

Seed = Annotated[int, typer.Option(help="Of everything random.")]
_SHOWN = 20  # scores printed where there is no --json


@app.command()
def train(
    pairs: Annotated[Path, typer.Argument(help="JSONL with prompt, chosen, rejected.")],
    validation: Annotated[Path, typer.Option(help="Pairs to measure on, not seen in training.")],
    out: Annotated[Path, typer.Option(help="New folder for the reward.")],
    trunk: Annotated[str, typer.Option(help="`light`, or a Hugging Face model.")] = "light",
    objective: Annotated[str | None, typer.Option(help="Its name, if the pairs give none.")] = None,
    calibrate: Annotated[
        Path | None, typer.Option(help="JSONL with prompt, completion: answers of the base model.")
    ] = None,
    scale: Annotated[str, typer.Option(help="`logistic` or `clip`.")] = "logistic",
    is_swapped: Annotated[
        bool, typer.Option("--swap", help="Exchange chosen and rejected: the opposite objective.")
    ] = False,
    group_by: Annotated[
        str | None, typer.Option(help="Column of what belongs together; default: the prompt.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Setting of the trunk.")
    ] = None,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """Train a reward, and print its held-out accuracy beside what length alone would do."""
    from palate.recipes.rewards import RewardJob, train_reward

    job = RewardJob.checked(
        {
            "pairs": pairs,
            "validation": validation,
            "out": out,
            "trunk": trunk,
            "objective": objective,
            "calibrate": calibrate,
            "scale": scale,
            "is_swapped": is_swapped,
            "group_by": group_by,
            "overrides": tuple(overrides or ()),
            "seed": seed,
        },
        source="the options",
    )
    trained = train_reward(job)
    card = trained.card.model_dump(mode="json")
    if is_json:
        typer.echo(dump_json({"folder": str(out), **card}))
        return
    console = Console()
    console.print(f"{out}: {card['objective']} ({card['trunk']}), {card['train']['n']} pairs")
    _print_accuracies(console, card["held_out"])
    if not trained.card.held_out.is_above_length:
        console.print("warning: no better than length alone, which it may have learned")
    if card["calibration"] is None:
        console.print("not calibrated: it ranks, but gives no number in [0, 1]")


@app.command()
def score(
    folder: Annotated[Path, typer.Argument(help="Of a reward.")],
    file: Annotated[Path, typer.Argument(help="JSONL with prompt, completion, or of pairs.")],
    is_raw: Annotated[bool, typer.Option("--raw", help="Log-odds, which need no scale.")] = False,
    group_by: Annotated[
        str | None, typer.Option(help="For pairs: column of what belongs together.")
    ] = None,
    is_json: IsJson = False,
) -> None:
    """Score answers in [0, 1], or rank pairs."""
    from palate.recipes.rewards import score_file

    found = score_file(folder, file, is_raw=is_raw, group_by=group_by).to_json()
    if is_json:
        typer.echo(dump_json(found))
        return
    console = Console()
    if "accuracy" in found:
        console.print(f"{found['objective']} on {file}")
        _print_accuracies(console, found)
        return
    for number, value in enumerate(found["scores"][:_SHOWN], start=1):
        console.print(f"{number}  {value:.4f}")
    if found["n"] > _SHOWN:
        console.print(f"... {found['n'] - _SHOWN} more; --json prints all")
    console.print(
        f"{found['objective']} ({found['scale']}): mean {found['mean']:.4f}, "
        f"sd {found['sd']:.4f}, n = {found['n']}"
    )


@app.command()
def table(
    folder: Annotated[Path, typer.Argument(help="With NAME.train.jsonl, NAME.validation.jsonl.")],
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
    from palate.recipes.rewards_table import TableJob, compare_rewards, markdown_table

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


def _print_accuracies(console: Console, held_out: dict[str, Any]) -> None:
    names = {
        "accuracy": "this reward",
        "longer_wins": "longer wins",
        "shorter_wins": "shorter wins",
        "length_only": "length only, fitted",
    }
    shown = Table("held-out pairs", "accuracy", "95 % interval", "n", "groups", "interval by")
    for key, name in names.items():
        found = held_out[key]
        shown.add_row(
            name,
            f"{found['estimate']:.3f}",
            f"[{found['low']:.3f}, {found['high']:.3f}]",
            str(found["n"]),
            str(found["n_groups"]),
            found["method"],
        )
    console.print(shown, markup=False)


def _split(text: str, *, sign: str, option: str) -> tuple[str, str]:
    left, found, right = text.partition(sign)
    if not (left and found and right):
        raise InvalidInputError(
            f"The value {text!r} of {option} lacks a name, {sign!r} or what follows; see --help."
        )
    return left, right
