"""`palate evaluate`: all ways on one scoreboard; `palate judge audit`: a judge against people."""

from pathlib import Path
from typing import Annotated

import typer

from palate.cli.parse import IsJson
from palate.core.files import dump_json

judge_app = typer.Typer(no_args_is_help=True, help="How far a judge can be trusted.")


def evaluate(
    suite: Annotated[Path | None, typer.Argument(help="YAML; without it, the world's.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of results, libraries and report.")] = Path(
        "out/report"
    ),
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting.")
    ] = None,
    is_quick: Annotated[
        bool, typer.Option("--quick", help="One seed, few prompts: shows that everything runs.")
    ] = False,
    is_json: IsJson = False,
) -> None:
    """People x prompts x ways x seeds, judged and compared, into results.jsonl and report.html."""
    from palate.core.settings import load_settings
    from palate.evaluate.suite import Suite
    from palate.recipes.evaluate import evaluate as run

    chosen = load_settings(Suite, suite, overrides=overrides or ())
    found = run(chosen.quick() if is_quick else chosen, out=out)
    for note in found.results.notes:
        typer.echo(f"palate: {note}", err=True)
    typer.echo(dump_json(found.to_json()) if is_json else found.evaluation.markdown)
