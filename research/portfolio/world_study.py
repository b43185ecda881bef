"""Experts trained on the small world, and what portfolios of them lose, by size."""

from pathlib import Path
from typing import Annotated

import typer

from palate.core.files import dump_json
from research.command_line import IsJson, Seeds, run, whole_numbers
from research.portfolio.world_losses import study_json, study_world_portfolios
from research.portfolio.world_policies import WorldStudySettings
from research.portfolio.world_report import render_world_study, write_world_study


def main(  # noqa: PLR0913  a command's options are its parameters
    *,
    seeds: Seeds = "0,1,2",
    size: Annotated[int, typer.Option(help="Members of the largest portfolio.")] = 8,
    calls: Annotated[int, typer.Option(help="Policies that adaptive search may make.")] = 8,
    objectives: Annotated[
        str, typer.Option(help="Of the small world, separated by commas.")
    ] = "elementary,expert,friendly",
    work: Annotated[Path, typer.Option(help="Folder of the libraries.")] = Path(
        "out/portfolio-world"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("reports"),
    is_json: IsJson = False,
) -> None:
    """Train experts on the small world and measure what portfolios of them lose, by size."""
    settings = WorldStudySettings.checked(
        {
            "seeds": whole_numbers(seeds, what="seeds"),
            "max_size": size,
            "max_calls": calls,
            "objectives": [name.strip() for name in objectives.split(",")],
        },
        source="the command line",
    )
    found = study_world_portfolios(settings, work=work)
    write_world_study(found, out)
    typer.echo(dump_json(study_json(found)) if is_json else render_world_study(found))


if __name__ == "__main__":
    run(main)
