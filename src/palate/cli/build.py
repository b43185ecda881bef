"""`palate build RUN.yaml`: pairs or rewards and a base become a library."""

from pathlib import Path
from typing import Annotated, Any

import typer

from palate.cli import options
from palate.cli.portfolio import print_grown
from palate.cli.printing import print_result
from palate.core.errors import InvalidInputError


def build(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="RUN.yaml|LIBRARY", help="A run file; for --expert and --gather, a library."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the library, by default out/ and the run file's name; with --expert, "
            "of the adapter."
        ),
    ] = None,
    overrides: options.Overrides = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Train this expert alone, as one of several jobs.")
    ] = None,
    is_prepared_only: Annotated[
        bool, typer.Option("--prepare", help="Make rollouts and rewards, and no expert.")
    ] = False,
    gather: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="COPY", help="Take the experts that another job trained in this copy."
        ),
    ] = None,
    expert: Annotated[
        str | None,
        typer.Option(help="Train this expert anew on all processes of `accelerate launch`."),
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="With --expert, instead of the library's.")
    ] = None,
    gradient_accumulation_steps: Annotated[
        int | None,
        typer.Option(min=1, help="With --expert: passes of a step; more processes need fewer."),
    ] = None,
    is_json: options.IsJson = False,
) -> None:
    """Build a library of experts; run it again after an interruption and it goes on."""
    modes = {"--gather": gather, "--expert": expert, "--only": only, "--prepare": is_prepared_only}
    named = [option for option, value in modes.items() if value]
    if len(named) > 1:
        raise InvalidInputError(f"The options {' and '.join(named)} exclude each other; give one.")
    for option, value in {"--set": overrides, "--out": out if gather else None}.items():
        if value and (gather or expert):
            raise InvalidInputError(f"The option {option} does nothing with {named[0]}; omit it.")
    if expert is None and (max_steps or gradient_accumulation_steps):
        raise InvalidInputError(
            "The options --max-steps and --gradient-accumulation-steps belong to --expert NAME."
        )
    if gather:
        from palate.build.library import gather_experts

        rows = [{"expert": name, "from": str(at)} for name, at in gather_experts(target, gather)]
        print_result(rows, is_json=is_json)
    elif expert is not None:
        _train(
            target,
            expert,
            out=out,
            max_steps=max_steps,
            gradient_accumulation_steps=gradient_accumulation_steps,
            is_json=is_json,
        )
    else:
        from palate.build.library import build_library
        from palate.build.run_file import RunSettings
        from palate.core.settings import load_settings

        settings = load_settings(RunSettings, target, overrides=overrides or ())
        experts = only or ([] if is_prepared_only else None)
        built = build_library(settings, out=out or Path("out") / target.stem, only=experts)
        if is_json:
            print_result(built.to_json(), is_json=True)
        else:
            _print_built(built.to_json())


def _train(library: Path, expert: str, *, out: Path | None, is_json: bool, **steps: Any) -> None:
    from palate.build.train_job import train_anchor

    if out is None:
        raise InvalidInputError("The option --expert needs a new folder; give --out.")
    trained = train_anchor(library, expert, out=out, **steps)
    if trained.is_first:
        print_result(trained.to_json(), is_json=is_json)


def _print_built(built: dict[str, Any]) -> None:
    portfolio = built.get("portfolio")
    print_result({**built, "portfolio": portfolio and portfolio["members"]}, is_json=False)
    for name, reward in built.get("rewards", {}).items():
        if not reward["is_above_length"]:
            typer.echo(f"warning: the reward {name} is no better than length alone")
    if portfolio is not None:
        print_grown(portfolio)
