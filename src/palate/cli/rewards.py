"""`palate rewards`: train a reward on pairs, score texts with it."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.parse import IsJson
from palate.core.files import dump_json

app = typer.Typer(no_args_is_help=True, help="Rewards: from users's pairs to numbers in [0, 1].")

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
    from palate.rewards.job import RewardJob, train_reward

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
    from palate.rewards.job import score_file

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
