"""`palate evaluate`: methods of a library on one scoreboard."""

from pathlib import Path
from typing import Annotated

import typer

from palate.cli import options
from palate.core.files import dump_json


def evaluate(
    library: options.LibraryFolder,
    suite: Annotated[
        Path, typer.Argument(metavar="SUITE.yaml", help="Users, prompts, methods and judge.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of results and report.")] = Path("out/report"),
    overrides: options.Overrides = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with the base.")] = 1,
    is_json: options.IsJson = False,
) -> None:
    """Users x prompts x methods x seeds, judged and compared: results.jsonl and report.html."""
    from palate.core.settings import load_settings
    from palate.evaluate.evaluation import evaluate as run
    from palate.evaluate.suite import Suite

    settings = load_settings(Suite, suite, overrides=overrides or ())
    report = run(library, settings, out=out, n_workers=workers)
    for note in report.results.notes:
        typer.echo(f"palate: {note}", err=True)
    typer.echo(dump_json(report.to_json()) if is_json else report.evaluation.markdown)
