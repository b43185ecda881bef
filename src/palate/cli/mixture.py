"""`palate mixture`: the controller that mixes experts token by token."""

from pathlib import Path
from typing import Annotated

import typer

from palate.cli import options
from palate.cli.printing import print_result

app = typer.Typer(no_args_is_help=True, help="Experts mixed token by token, under a controller.")


@app.command()
def fit(
    library: options.LibraryFolder,
    run: Annotated[
        Path | None, typer.Argument(help="YAML of the run; without it, the defaults.")
    ] = None,
    overrides: options.Overrides = None,
    base: options.BasePath = None,
    is_json: options.IsJson = False,
) -> None:
    """Train the library's controller and put it into the library; resumes."""
    from palate.build.mixture_fit import MixtureRun, fit_mixture
    from palate.core.progress import progress_of
    from palate.core.settings import load_settings
    from palate.library.library import Library

    settings = load_settings(MixtureRun, run, overrides=overrides or ())
    opened = Library.load(library, base=base)
    with progress_of("controller") as report:
        fitted = fit_mixture(opened, settings, on_update=report)
    if fitted.is_first:
        print_result(fitted.to_json(), is_json=is_json)


@app.command()
def explain(
    library: options.LibraryFolder,
    prompt: Annotated[str, typer.Option(help="The user's message.")],
    preference: Annotated[
        str, typer.Option("--preference", "-p", metavar="a=0.7,b=0.3", help="Shares by objective.")
    ],
    out: Annotated[Path | None, typer.Option(help="HTML page to write.")] = None,
    temperature: options.Temperature = None,
    max_tokens: options.MaxTokens = 128,
    seed: options.Seed = 0,
    base: options.BasePath = None,
    is_json: options.IsJson = False,
) -> None:
    """Answer under the controller, and show each expert's share of every token."""
    from palate.library.explain import explain_answer
    from palate.library.library import Library

    opened = Library.load(library, base=base)
    explanation = explain_answer(
        opened,
        prompt,
        options.numbers_by_name(preference, what="preference") or {},
        sampling=options.sampling_of(opened, temperature=temperature, max_tokens=max_tokens),
        seed=seed,
        out=out,
    )
    print_result(explanation.to_json(), is_json=is_json)
