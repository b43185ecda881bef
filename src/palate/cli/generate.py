"""`palate generate` and `palate score`: answers for a user, and the probability of answers."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from palate.cli import options
from palate.core.errors import InvalidInputError
from palate.core.files import dump_json

if TYPE_CHECKING:
    from palate.core.decision import Decision


def generate(
    library: options.LibraryOrBase,
    prompt: Annotated[str, typer.Option(help="The user's message.")],
    preference: options.PreferenceText = None,
    coefficients: options.CoefficientsText = None,
    instruction: options.InstructionText = None,
    method: options.MethodName = "auto",
    strength: options.Strength = None,
    max_passes: options.MaxPasses = None,
    n_candidates: Annotated[
        int | None, typer.Option(help="Best of n: sample n answers, keep the one ranked first.")
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Answers.")] = 1,
    seed: options.Seed = 0,
    temperature: options.Temperature = None,
    top_p: Annotated[float, typer.Option(help="Keep the most probable tokens of this mass.")] = 1.0,
    max_tokens: options.MaxTokens = 128,
    engine: options.Engine = "local",
    engine_config: options.EngineConfig = None,
    engine_set: options.EngineSet = None,
    base: options.BasePath = None,
    is_json: options.IsJson = False,
) -> None:
    """Answer a prompt as a user prefers it."""
    from palate.library.generate import answer_seed, generate_all

    if n < 1:
        raise InvalidInputError(f"{n} answers were asked for; ask for at least one.")
    choice = options.chosen_engine(engine, engine_config, engine_set or [])
    opened, known = options.open_for_user(
        library,
        base=base,
        preference=preference,
        coefficients=coefficients,
        instruction=instruction,
        strength=strength,
        max_passes=max_passes,
    )
    sampling = options.sampling_of(
        opened, temperature=temperature, max_tokens=max_tokens, top_p=top_p
    )
    decision = opened.decide(prompt, known, method=method, n_candidates=n_candidates)
    seeds = [answer_seed(seed, place=place) for place in range(n)]
    with closing(opened.engine if choice is None else choice.open(opened)) as writer:
        outputs = generate_all(
            opened, [decision] * n, sampling=sampling, seeds=seeds, engine=writer
        )
    if is_json:
        answers = [output.to_json() for output in outputs]
        typer.echo(dump_json({**decision.to_json(), "answers": answers}))
        return
    _print_decision(decision)
    for output in outputs:
        typer.echo(output.text.strip())  # as it is: no wrapping, no markup, no emoji codes


def score(
    library: options.LibraryOrBase,
    file: Annotated[Path, typer.Argument(help="JSONL with prompt and completion.")],
    preference: options.PreferenceText = None,
    coefficients: options.CoefficientsText = None,
    instruction: options.InstructionText = None,
    method: options.MethodName = "auto",
    strength: options.Strength = None,
    max_passes: options.MaxPasses = None,
    has_end: Annotated[
        bool, typer.Option("--end/--no-end", help="Count the end token as part of the answer.")
    ] = True,
    base: options.BasePath = None,
    is_json: options.IsJson = False,
) -> None:
    """Log-probabilities of given answers under a method; a bare base model is scored as it is."""
    from palate.library.generate import score_file

    opened, known = options.open_for_user(
        library,
        base=base,
        preference=preference,
        coefficients=coefficients,
        instruction=instruction,
        strength=strength,
        max_passes=max_passes,
    )
    scored = score_file(opened, file, known=known, method=method, is_ended=has_end)
    if is_json:
        typer.echo(dump_json(scored.to_json()))
        return
    _print_decision(scored.decision)
    _print_scores(scored.to_json())


def _print_decision(decision: "Decision") -> None:
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
    total, mean = scored["log_prob"], scored["mean_log_prob"]
    table.add_row("all", str(scored["n_tokens"]), f"{total:.4f}", f"{mean:.4f}")
    Console().print(table)
