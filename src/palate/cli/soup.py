"""`palate soup`: experts blended in parameters or in outputs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from palate.cli import options
from palate.cli.printing import print_result

if TYPE_CHECKING:
    from palate.build.soup_fitting import Refine
    from palate.soup.plans import SoupMethod

app = typer.Typer(no_args_is_help=True, help="Experts blended in parameters or in outputs.")


@app.command()
def merge(
    library: options.LibraryFolder,
    coefficients: options.CoefficientsText = None,
    out: Annotated[Path, typer.Option(help="New folder for the adapter.")] = Path("adapter"),
    rank: Annotated[
        int | None, typer.Option(help="Compress to this rank; exact without it.")
    ] = None,
    is_json: options.IsJson = False,
) -> None:
    """One adapter that peft and vLLM load: the exact sum of experts with these coefficients."""
    from palate.library.merge import merge_soup

    merged = merge_soup(
        library, options.coefficients_by_name(coefficients) or {}, out=out, rank=rank
    )
    print_result(vars(merged), is_json=is_json)


@app.command()
def basis(
    library: options.LibraryFolder,
    population: Annotated[
        Path | None, typer.Option(help="JSONL of many users' feedback, for prior and gain.")
    ] = None,
    floor: Annotated[
        str | None,
        typer.Option(metavar="expert=0.3", help="Coefficient that feedback cannot lower."),
    ] = None,
    overrides: options.Overrides = None,
    base: options.BasePath = None,
    is_json: options.IsJson = False,
) -> None:
    """Measure a library's experts as a basis and write its soup.json."""
    from palate.build.soup_fit import write_soup

    written = write_soup(
        library,
        population=population,
        floor=options.numbers_by_name(floor, what="floor"),
        overrides=overrides or (),
        base=base,
    )
    measured = written.basis
    content = {
        "file": str(written.path),
        "experts": list(measured.experts),
        "order": list(written.order),
        "effective_rank": measured.effective_rank,
        "feature_scales": measured.feature_scales,
        "n_users": measured.prior.n_observations,
        "gain": measured.prior.gain,
        "floor": measured.floor,
        "settings": measured.settings.model_dump(),
    }
    print_result(content, is_json=is_json)


@app.command()
def fit(
    library: Annotated[Path, typer.Argument(help="Folder of a library with a soup.json.")],
    feedback: Annotated[Path, typer.Option(help="JSONL of comparisons, ratings or thumbs.")],
    method: Annotated[str, typer.Option(help="soup or output-soup.")] = "soup",
    user: Annotated[
        str | None, typer.Option(help="The user, where the file has several users' feedback.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Coefficients file, for generate --coefficients @FILE.")
    ] = None,
    refine: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="Serves a belief of its own (docs/soup.md)."),
    ] = None,
    base: options.BasePath = None,
    is_json: options.IsJson = False,
) -> None:
    """A user's coefficients from feedback, with credible intervals and the predicted gain."""
    from palate.build.soup_fit import fit_soup
    from palate.rewards.functions import function_at

    fitted = fit_soup(
        library,
        feedback,
        method=cast("SoupMethod", method),
        user=user,
        out=out,
        base=base,
        refine=None if refine is None else cast("Refine", function_at(refine)),
    )
    print_result(fitted.to_json(), is_json=is_json)
