"""`palate mixture`: the controller that mixes experts token by token."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.parse import (
    BasePath,
    IsJson,
    LibraryFolder,
    Overrides,
    numbers_by_name,
)
from palate.core.errors import InvalidInputError
from palate.core.files import dump_json

app = typer.Typer(no_args_is_help=True, help="Experts mixed token by token, under a controller.")

RunFile = Annotated[
    Path | None, typer.Argument(help="YAML of the run; without it, the small world's.")
]


@app.command()
def fit(
    library: LibraryFolder,
    run: RunFile = None,
    overrides: Overrides = None,
    base: BasePath = None,
    is_json: IsJson = False,
) -> None:
    """Train the library's controller and put it into the library; resumes."""
    from palate.build.mixture_fit import WORLD_OVERRIDES, MixtureRun, fit_mixture
    from palate.core.progress import progress_of
    from palate.core.settings import load_settings
    from palate.library.library import Library

    preset = WORLD_OVERRIDES if run is None else ()
    settings = load_settings(MixtureRun, run, overrides=[*preset, *(overrides or ())])
    opened = Library.load(library, base=base)
    with progress_of("controller") as report:
        fitted = fit_mixture(opened, settings, on_update=report)
    if not fitted.is_first:
        return
    found = fitted.to_json()
    if is_json:
        typer.echo(dump_json(found))
        return
    _show_fit(Console(), found)


@app.command()
def explain(
    library: LibraryFolder,
    prompt: Annotated[str, typer.Option(help="What is asked.")],
    preference: Annotated[
        str, typer.Option("--preference", "-p", metavar="a=0.7,b=0.3", help="Shares by objective.")
    ],
    out: Annotated[Path | None, typer.Option(help="HTML page to write.")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 128,
    seed: Annotated[int, typer.Option(help="The same seed gives the same answer.")] = 0,
    base: BasePath = None,
    is_json: IsJson = False,
) -> None:
    """Answer under the controller, and say of every token who was asked and who wrote it."""
    from palate.core.protocols import SamplingParams
    from palate.library.explain import explain_answer
    from palate.library.library import Library

    shares = numbers_by_name(preference, what="preference")
    if shares is None:
        raise InvalidInputError("The preference is empty; give shares by objective.")
    told = explain_answer(
        Library.load(library, base=base),
        prompt,
        shares,
        sampling=SamplingParams(temperature=temperature, max_tokens=max_tokens),
        seed=seed,
        out=out,
    )
    if is_json:
        typer.echo(dump_json(told.to_json()))
        return
    console = Console()
    console.print("".join(token.text for token in told.tokens), markup=False)
    table = Table("token", "log p", *(f"{name} asked / wrote" for name in told.experts))
    for token in told.tokens:
        pairs = zip(token.shares, token.responsibilities, strict=True)
        numbers = [f"{share:.2f} / {wrote:.2f}" for share, wrote in pairs]
        table.add_row(repr(token.text), f"{token.log_prob:.2f}", *numbers)
    console.print(table)


def _show_fit(console: Console, found: dict[str, Any]) -> None:
    console.print(
        f"{found['folder']}: {found['parameters']:,} parameters, {found['updates']} updates, "
        f"{found['seconds']:.0f} s"
    )
    table = Table("combinations", "reward, uniform", "reward, controller", "entropy", "adaptivity")
    for name, after in found["after"].items():
        before = found["before"][name]
        table.add_row(
            name,
            f"{before['reward']:.3f}",
            f"{after['reward']:.3f}",
            f"{after['mean_entropy']:.3f}",
            f"{after['adaptivity']:.3f}",
        )
    console.print(table)
    for sentence in found["warnings"]:
        console.print(f"warning: {sentence}", markup=False)
