"""`palate evaluate`: methods on one scoreboard; `palate judge audit`: a judge against people."""

from pathlib import Path
from typing import Annotated

import typer

from palate.cli.parse import IsJson, Overrides
from palate.core.files import dump_json

judge_app = typer.Typer(no_args_is_help=True, help="How far a judge can be trusted.")


def evaluate(
    suite: Annotated[Path | None, typer.Argument(help="YAML; without it, the world's.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of results, libraries and report.")] = Path(
        "out/report"
    ),
    overrides: Overrides = None,
    is_quick: Annotated[
        bool, typer.Option("--quick", help="One seed, few prompts: shows that everything runs.")
    ] = False,
    safety: Annotated[
        str | None,
        typer.Option(help="Objective: what a safety floor on its expert does to every method."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes; by default one per core for the world, else one."),
    ] = None,
    is_json: IsJson = False,
) -> None:
    """Users x prompts x methods x seeds, judged and compared: results.jsonl and report.html."""
    from palate.core.settings import load_settings
    from palate.evaluate.suite import Suite
    from palate.recipes.evaluate import evaluate as run
    from palate.recipes.evaluate_floor import evaluate_floor, render_floor

    chosen = load_settings(Suite, suite, overrides=overrides or ())
    chosen = chosen.quick() if is_quick else chosen
    if safety is not None:
        study = evaluate_floor(chosen, safety, out=out)
        typer.echo(dump_json(study.to_json()) if is_json else render_floor(study))
        return
    found = run(chosen, out=out, n_workers=workers)
    for note in found.results.notes:
        typer.echo(f"palate: {note}", err=True)
    typer.echo(dump_json(found.to_json()) if is_json else found.evaluation.markdown)


@judge_app.callback()
def judge() -> None:
    """How far a judge can be trusted."""


@judge_app.command()
def audit(
    pairs: Annotated[list[Path], typer.Argument(help="JSONL of judgments with question_id.")],
    ties: Annotated[Path | None, typer.Option(help="JSONL of judgments that were ties.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("reports"),
    ridge: Annotated[
        float | None, typer.Option(help="Of the light reward; chosen in each fold without it.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="OpenAI-compatible endpoint to audit.")] = None,
    model: Annotated[str | None, typer.Option(help="Its model.")] = None,
    cache: Annotated[Path | None, typer.Option(help="SQLite file for its verdicts.")] = None,
    is_json: IsJson = False,
) -> None:
    """Agreement with people, position flips and length bias of rules, a reward and a model."""
    from palate.core.errors import InvalidInputError
    from palate.recipes.judge_audit import AuditJob, render_audit, write_audit
    from palate.recipes.judge_audit import audit as run

    if (url is None) != (model is None):
        raise InvalidInputError("An endpoint needs both --url and --model; give both or neither.")
    job = AuditJob(tuple(pairs), ties=ties, ridge=ridge, url=url, model=model, cache=cache)
    found = run(job)
    names = " ".join(path.name for path in pairs)
    command = f"palate judge audit {names}" + (f" --ties {ties.name}" if ties else "")
    command += f" --ridge {ridge:g}" if ridge is not None else ""
    write_audit(found, out, command=command)
    typer.echo(dump_json(found.to_json()) if is_json else render_audit(found, command=command))
