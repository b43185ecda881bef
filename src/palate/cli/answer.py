"""`palate answer` and `palate score`: texts in a person's taste, and the probability of texts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.parse import (
    BasePath,
    CoefficientsText,
    IsJson,
    PreferenceText,
    coefficients_by_name,
    numbers_by_name,
)
from palate.core.files import dump_json

if TYPE_CHECKING:
    from palate.recipes.opened import Opened
    from palate.recipes.ways import Asked, Chosen

LibraryFolder = Annotated[
    Path, typer.Argument(help="Folder of a library, or of a bare base model.")
]
WayName = Annotated[str, typer.Option(help="auto, base, portfolio, soup, output-soup or mixture.")]
Strength = Annotated[
    float, typer.Option(help="Multiplies coefficients that follow from a preference.")
]


def answer(
    library: LibraryFolder,
    prompt: Annotated[str, typer.Option(help="What is asked.")],
    preference: PreferenceText = None,
    coefficients: CoefficientsText = None,
    way: WayName = "auto",
    strength: Strength = 1.0,
    n: Annotated[int, typer.Option("-n", help="Answers.")] = 1,
    seed: Annotated[int, typer.Option(help="The same seed gives the same answers.")] = 0,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Keep the most probable tokens of this mass.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 128,
    base: BasePath = None,
    is_json: IsJson = False,
) -> None:
    """Answer a prompt in a person's taste."""
    from palate.core.protocols import Sampling
    from palate.recipes.answer import answer as recipe

    sampling = Sampling(temperature=temperature, top_p=top_p, max_tokens=max_tokens)
    asked = asked_for(way, preference=preference, coefficients=coefficients, strength=strength)
    opened = open_for(library, base=base, coefficients=coefficients)
    found = recipe(opened, prompt, asked, sampling=sampling, n=n, seed=seed)
    if is_json:
        typer.echo(dump_json(found.to_json()))
        return
    _print_choice(found.chosen)
    for completion in found.completions:
        typer.echo(completion.text.strip())  # as it is: no wrapping, no markup, no emoji codes


def score(
    library: LibraryFolder,
    file: Annotated[Path, typer.Argument(help="JSONL with prompt and completion.")],
    preference: PreferenceText = None,
    coefficients: CoefficientsText = None,
    way: WayName = "auto",
    strength: Strength = 1.0,
    has_end: Annotated[
        bool, typer.Option("--end/--no-end", help="Count the end token as part of the answer.")
    ] = True,
    base: BasePath = None,
    is_json: IsJson = False,
) -> None:
    """Log-probabilities of given answers under a way; a bare base model is scored as it is."""
    from palate.recipes.answer import score_file
    from palate.recipes.opened import open_for_scoring
    from palate.recipes.palm_route import portfolio_at
    from palate.recipes.ways import choose

    asked = asked_for(way, preference=preference, coefficients=coefficients, strength=strength)
    loaded, bank, manifest = open_for_scoring(library, base=base)
    require_same_base(coefficients, manifest.base.fingerprint)
    portfolio = portfolio_at(library) if way == "portfolio" else None
    chosen = choose(manifest, asked, portfolio=portfolio)
    found = score_file(loaded, bank, file, chosen=chosen, is_ended=has_end).to_json()
    if is_json:
        said = {"way": chosen.way, "coefficients": chosen.coefficients, "reason": chosen.reason}
        typer.echo(dump_json({**said, **found}))
        return
    _print_choice(chosen)
    _print_scores(found, way=chosen.way)


def _print_choice(chosen: "Chosen") -> None:
    used = ", ".join(f"{name} {value:+.3g}" for name, value in chosen.coefficients.items())
    said = f"{chosen.way}: {used or 'no expert'}. {chosen.reason}"
    Console(highlight=False).print(said, style="dim", markup=False)


def open_for(library: Path, *, base: str | None, coefficients: str | None) -> "Opened":
    """The library, opened, after a file of coefficients was compared with it.

    Raises:
        InvalidInputError: there is no library, or the coefficients are of another base.
        FormatError: the library is damaged.
    """
    from palate.recipes.opened import open_library

    opened = open_library(library, base=base)
    require_same_base(coefficients, opened.library.manifest.base.fingerprint)
    return opened


def _print_scores(found: dict[str, Any], *, way: str) -> None:
    table = Table("row", "tokens", "log-prob", "per token", title=f"way {way}")
    for number, row in enumerate(found["rows"], start=1):
        mean = row["log_prob"] / max(row["n_tokens"], 1)
        table.add_row(str(number), str(row["n_tokens"]), f"{row['log_prob']:.4f}", f"{mean:.4f}")
    table.add_section()
    table.add_row(
        "all", str(found["n_tokens"]), f"{found['log_prob']:.4f}", f"{found['mean_log_prob']:.4f}"
    )
    Console().print(table)


def asked_for(
    way: str, *, preference: str | None, coefficients: str | None, strength: float
) -> "Asked":
    """What the options say of a person."""
    from palate.recipes.ways import Asked, Way

    return Asked(
        way=cast(Way, way),
        preference=numbers_by_name(preference, what="preference"),
        coefficients=coefficients_by_name(coefficients),
        strength=strength,
    )


def require_same_base(text: str | None, base: str) -> None:
    """Refuse a coefficients file that was fitted on another base."""
    if text is not None and text.startswith("@"):
        from palate.soup.coefficients_file import load_coefficients

        load_coefficients(Path(text[1:]), base=base)
