"""`palate rewards`: train a reward on pairs, score texts with it."""

from pathlib import Path
from typing import Annotated

import typer

from palate.cli import options
from palate.cli.printing import print_result

app = typer.Typer(no_args_is_help=True, help="Train rewards on pairs, and score texts.")

N_PRINTED = 20  # scores, where there is no --json


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
    overrides: options.Overrides = None,
    seed: options.Seed = 0,
    is_json: options.IsJson = False,
) -> None:
    """Train a reward, and print its held-out accuracy beside that of length alone."""
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
    card = train_reward(job).card
    print_result({"folder": str(out), **card.model_dump(mode="json")}, is_json=is_json)
    if not is_json and card.held_out.length_warning is not None:
        typer.echo(f"warning: {card.held_out.length_warning}")
    if not is_json and card.calibration is None:
        typer.echo("not calibrated: it ranks, but gives no number in [0, 1]")


@app.command()
def score(
    folder: Annotated[Path, typer.Argument(help="Folder of a reward.")],
    file: Annotated[Path, typer.Argument(help="JSONL with prompt, completion, or of pairs.")],
    is_raw: Annotated[bool, typer.Option("--raw", help="Log-odds, which need no scale.")] = False,
    group_by: Annotated[
        str | None, typer.Option(help="For pairs: column of what belongs together.")
    ] = None,
    is_json: options.IsJson = False,
) -> None:
    """Score answers in [0, 1], or rank pairs."""
    from palate.rewards.job import score_file

    scored = score_file(folder, file, is_raw=is_raw, group_by=group_by).to_json()
    if not is_json and scored["scores"][N_PRINTED:]:
        scored["scores"] = [*scored["scores"][:N_PRINTED], "more with --json"]
    print_result(scored, is_json=is_json)
