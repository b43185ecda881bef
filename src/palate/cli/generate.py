"""`palate generate` and `palate score`: answers for a user, and the probability of answers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    from palate.core.decision import Decision, Known
    from palate.library.library import Library

LibraryFolder = Annotated[
    Path, typer.Argument(help="Folder of a library, or of a bare base model.")
]
MethodName = Annotated[
    str,
    typer.Option(
        help="auto, base, prompt, best-of-n, portfolio, soup, prompted-soup, output-soup, "
        "implicit-soup or mixture."
    ),
]
InstructionText = Annotated[
    str | None, typer.Option(help="The user's own words, such as 'Keep it short.'")
]
Strength = Annotated[
    float | None,
    typer.Option(help="Multiplies coefficients from a preference; by default the library's own."),
]
MaxPasses = Annotated[
    float | None, typer.Option(help="Passes of the base per token that auto may spend.")
]


def generate(
    library: LibraryFolder,
    prompt: Annotated[str, typer.Option(help="What is asked.")],
    preference: PreferenceText = None,
    coefficients: CoefficientsText = None,
    instruction: InstructionText = None,
    method: MethodName = "auto",
    strength: Strength = None,
    max_passes: MaxPasses = None,
    n_candidates: Annotated[
        int | None, typer.Option(help="Draw so many, keep the one the user's reward prefers.")
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Answers.")] = 1,
    seed: Annotated[int, typer.Option(help="The same seed gives the same answers.")] = 0,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Keep the most probable tokens of this mass.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 128,
    base: BasePath = None,
    is_json: IsJson = False,
) -> None:
    """Answer a prompt as a user wants it."""
    from palate.core.errors import InvalidInputError
    from palate.core.protocols import SamplingParams
    from palate.library.generate import answer_seed, generate_all

    if n < 1:
        raise InvalidInputError(f"{n} answers were asked for; ask for at least one.")
    sampling = SamplingParams(temperature=temperature, top_p=top_p, max_tokens=max_tokens)
    known = known_from_options(
        preference=preference,
        coefficients=coefficients,
        instruction=instruction,
        strength=strength,
        max_passes=max_passes,
    )
    opened = open_for(library, base=base, coefficients=coefficients)
    decision = opened.decide(prompt, known, method=method, n_candidates=n_candidates)
    seeds = [answer_seed(seed, place=place) for place in range(n)]
    outputs = generate_all(opened, [decision] * n, sampling=sampling, seeds=seeds)
    if is_json:
        shown = decision_json(decision)
        typer.echo(dump_json({**shown, "answers": [output.to_json() for output in outputs]}))
        return
    print_decision(decision)
    for output in outputs:
        typer.echo(output.text.strip())  # as it is: no wrapping, no markup, no emoji codes


def score(
    library: LibraryFolder,
    file: Annotated[Path, typer.Argument(help="JSONL with prompt and completion.")],
    preference: PreferenceText = None,
    coefficients: CoefficientsText = None,
    instruction: InstructionText = None,
    method: MethodName = "auto",
    strength: Strength = None,
    max_passes: MaxPasses = None,
    has_end: Annotated[
        bool, typer.Option("--end/--no-end", help="Count the end token as part of the answer.")
    ] = True,
    base: BasePath = None,
    is_json: IsJson = False,
) -> None:
    """Log-probabilities of given answers under a method; a bare base model is scored as it is."""
    from palate.library.score_file import score_file

    known = known_from_options(
        preference=preference,
        coefficients=coefficients,
        instruction=instruction,
        strength=strength,
        max_passes=max_passes,
    )
    opened = open_for(library, base=base, coefficients=coefficients)
    scored = score_file(opened, file, known=known, method=method, is_ended=has_end)
    if is_json:
        typer.echo(dump_json(scored.to_json()))
        return
    print_decision(scored.decision)
    _print_scores(scored.to_json())


def known_from_options(
    *,
    preference: str | None,
    coefficients: str | None,
    instruction: str | None = None,
    strength: float | None = None,
    max_passes: float | None = None,
) -> "Known":
    """What the options say of a user.

    Raises:
        InvalidInputError: a text is not of its form.
    """
    from palate.core.decision import Known

    return Known(
        preference=numbers_by_name(preference, what="preference"),
        coefficients=coefficients_by_name(coefficients),
        instruction=instruction,
        strength=strength,
        max_passes=max_passes,
    )


def open_for(library: Path, *, base: str | None, coefficients: str | None) -> "Library":
    """The library, opened, after a file of coefficients was compared with it.

    Raises:
        InvalidInputError: there is no library, or the coefficients are of another base.
        FormatError: the library is damaged.
    """
    from palate.library.library import Library

    opened = Library.load(library, base=base)
    if coefficients is not None and coefficients.startswith("@"):
        from palate.soup.coefficients_file import load_coefficients

        load_coefficients(Path(coefficients[1:]), base=opened.manifest.base.fingerprint)
    return opened


def decision_json(decision: "Decision") -> dict[str, Any]:
    """A decision as plain data."""
    predicted = decision.predicted_utility
    return {
        "method": decision.method,
        "coefficients": dict(decision.coefficients),
        "reason": decision.reason,
        "n_candidates": decision.n_candidates,
        "n_passes": decision.n_passes,
        "predicted_utility": None if predicted is None else predicted.to_json(),
        "certified_loss": decision.certified_loss,
        "plan": decision.plan.to_json(),
    }


def print_decision(decision: "Decision") -> None:
    """Method, coefficients and reason in one dim line."""
    used = ", ".join(f"{name} {value:+.3g}" for name, value in decision.coefficients.items())
    line = f"{decision.method}: {used or 'no expert'}. {decision.reason}"
    Console(highlight=False).print(line, style="dim", markup=False)


def _print_scores(scored: dict[str, Any]) -> None:
    table = Table("row", "tokens", "log-prob", "per token", title=f"method {scored['method']}")
    for number, row in enumerate(scored["rows"], start=1):
        mean = row["log_prob"] / max(row["n_tokens"], 1)
        table.add_row(str(number), str(row["n_tokens"]), f"{row['log_prob']:.4f}", f"{mean:.4f}")
    table.add_section()
    table.add_row(
        "all",
        str(scored["n_tokens"]),
        f"{scored['log_prob']:.4f}",
        f"{scored['mean_log_prob']:.4f}",
    )
    Console().print(table)
