"""`palate soup`: experts blended in parameters or in outputs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.parse import (
    BasePath,
    CoefficientsText,
    IsJson,
    LibraryFolder,
    coefficients_by_name,
    numbers_by_name,
)
from palate.core.files import dump_json

if TYPE_CHECKING:
    from palate.soup.plans import SoupMethod

app = typer.Typer(no_args_is_help=True, help="Experts blended in parameters or in outputs.")


@app.command()
def merge(
    library: LibraryFolder,
    coefficients: CoefficientsText = None,
    out: Annotated[Path, typer.Option(help="New folder for the adapter.")] = Path("adapter"),
    rank: Annotated[
        int | None, typer.Option(help="Compress to this rank; exact without it.")
    ] = None,
    is_json: IsJson = False,
) -> None:
    """One adapter that peft and vLLM load: the exact sum of experts with these coefficients."""
    from palate.library.merge import merge_soup

    named = coefficients_by_name(coefficients)
    found = merge_soup(library, named or {}, out=out, rank=rank)
    if is_json:
        typer.echo(dump_json(vars(found)))
        return
    exact = "exact" if rank is None else f"relative error {found.relative_error:.2e} at most"
    typer.echo(f"{found.folder}: {found.n_layers} layers, rank {found.rank}, {exact}")


@app.command()
def basis(
    library: LibraryFolder,
    population: Annotated[
        Path | None, typer.Option(help="JSONL of many users's feedback, for prior and gain.")
    ] = None,
    floor: Annotated[
        str | None,
        typer.Option(metavar="expert=0.3", help="Coefficient that feedback cannot lower."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, such as budget=0.1."),
    ] = None,
    base: BasePath = None,
    is_json: IsJson = False,
) -> None:
    """Measure a library's experts as a basis and write its soup.json."""
    from palate.build.soup_basis import write_soup

    written = write_soup(
        library,
        population=population,
        floor=numbers_by_name(floor, what="floor"),
        overrides=overrides or (),
        base=base,
    )
    found = written.basis
    if is_json:
        typer.echo(
            dump_json(
                {
                    "file": str(written.path),
                    "experts": list(found.experts),
                    "order": list(written.order),
                    "effective_rank": found.effective_rank,
                    "feature_scales": found.feature_scales,
                    "n_users": found.prior.n_observations,
                    "gain": found.prior.gain,
                    "floor": found.floor,
                    "settings": found.settings.model_dump(),
                }
            )
        )
        return
    ranks = ", ".join(f"{count} at {share}" for share, count in found.effective_rank.items())
    typer.echo(f"{written.path}: {len(found.experts)} experts, effective rank {ranks}")
    typer.echo(f"most is added by, in order: {', '.join(written.order)}")
    users = found.prior.n_observations
    typer.echo(f"prior of {users} users" if users else "no population prior")


@app.command()
def fit(
    library: Annotated[Path, typer.Argument(help="Folder of a library with a soup.json.")],
    feedback: Annotated[Path, typer.Option(help="JSONL of comparisons, ratings or thumbs.")],
    method: Annotated[str, typer.Option(help="soup or output-soup.")] = "soup",
    user: Annotated[str | None, typer.Option(help="Whose feedback, if several users's.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Coefficients file, for answer --coefficients @FILE.")
    ] = None,
    base: BasePath = None,
    is_json: IsJson = False,
) -> None:
    """A user's coefficients from feedback, with credible intervals and the predicted gain."""
    from palate.build.soup_fit import fit_soup

    found = fit_soup(
        library, feedback, method=cast("SoupMethod", method), user=user, out=out, base=base
    )
    if is_json:
        typer.echo(dump_json(found.to_json()))
        return
    soup = found.soup
    table = Table("expert", "served", "believed", f"{found.confidence:.0%} credible interval")
    for place, name in enumerate(found.experts):
        low, high = found.intervals[place]
        table.add_row(
            name,
            f"{soup.coefficients[place]:+.3f}",
            f"{soup.believed[place]:+.3f}",
            f"[{low:+.3f}, {high:+.3f}]",
        )
    console = Console()
    console.print(table)
    kinds = ", ".join(f"{kind} {count}" for kind, count in found.counts.items())
    gain = soup.gain
    kl = found.report.kl_per_token
    console.print(f"read: {kinds}; trust region times {soup.scale:.2f}, KL per token {kl:.3f}")
    console.print(
        f"predicted gain per token {gain.estimate:.4f} [{gain.low:.4f}, {gain.high:.4f}], "
        "reward units, KL price paid"
    )
    for warning in found.warnings:
        console.print(f"warning: {warning}", markup=False)
