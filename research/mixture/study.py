"""The trained controller against its rivals in the small world, gold as judge."""

from pathlib import Path
from typing import Annotated

import typer

from palate.core.errors import CheckFailedError
from palate.core.files import dump_json
from research.command_line import IsJson, Overrides, Seeds, run, whole_numbers
from research.mixture.ablations import SIZES, run_ablations
from research.mixture.report import render_study, study_json, write_study
from research.mixture.win_rates import MixtureStudySettings, study_mixture


def main(  # noqa: PLR0913  a command's options are its parameters
    *,
    seeds: Seeds = "0,1,2",
    overrides: Overrides = None,
    has_ablations: Annotated[
        bool, typer.Option("--ablations/--no-ablations", help="Also train variants, on one seed.")
    ] = False,
    n_prompts: Annotated[int, typer.Option("--prompts", help="Held-out prompts.")] = 96,
    work: Annotated[Path, typer.Option(help="Folder of all that is made.")] = Path(
        "out/mixture-study"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("reports"),
    is_json: IsJson = False,
) -> None:
    """The trained controller against its rivals in the small world, gold as judge; resumes."""
    settings = MixtureStudySettings(
        work=work,
        overrides=tuple(overrides or ()),
        seeds=whole_numbers(seeds, what="seeds"),
        n_prompts=n_prompts,
    )
    result = study_mixture(settings)
    ablations = run_ablations(settings, sizes=SIZES) if has_ablations else None
    write_study(result, ablations, out)
    if is_json:
        typer.echo(dump_json(study_json(result, ablations)))
    else:
        typer.echo(render_study(result, ablations))
    if result.failures:
        raise CheckFailedError(" ".join(result.failures))


if __name__ == "__main__":
    run(main)
