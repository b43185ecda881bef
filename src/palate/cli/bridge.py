"""`palate bridge`: to and from AlpacaEval and the lm-evaluation-harness."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.generate import (
    InstructionText,
    LibraryFolder,
    MethodName,
    Strength,
    known_from_options,
    open_for,
)
from palate.cli.parse import (
    BasePath,
    CoefficientsText,
    IsJson,
    PreferenceText,
)
from palate.core.files import dump_json

app = typer.Typer(no_args_is_help=True, help="To and from other evaluations.")


@app.command()
def alpaca(
    library: LibraryFolder,
    instructions: Annotated[Path, typer.Argument(help="JSON list with instruction and input.")],
    out: Annotated[Path, typer.Option(help="File for alpaca_eval --model_outputs.")],
    preference: PreferenceText = None,
    coefficients: CoefficientsText = None,
    instruction: InstructionText = None,
    method: MethodName = "auto",
    strength: Strength = None,
    generator: Annotated[str, typer.Option(help="Name of the answers in AlpacaEval.")] = "palate",
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 512,
    seed: Annotated[int, typer.Option(help="The same seed gives the same answers.")] = 0,
    base: BasePath = None,
    is_json: IsJson = False,
) -> None:
    """Answer AlpacaEval's instructions as one user wants them, for its judges."""
    from palate.core.protocols import SamplingParams
    from palate.evaluate.alpaca_answers import AlpacaJob, answer_instructions

    known = known_from_options(
        preference=preference,
        coefficients=coefficients,
        instruction=instruction,
        strength=strength,
    )
    opened = open_for(library, base=base, coefficients=coefficients)
    sampling = SamplingParams(temperature=temperature, max_tokens=max_tokens)
    job = AlpacaJob(instructions, out, sampling, generator=generator, seed=seed)
    found = answer_instructions(opened, known, job, method=method)
    if is_json:
        typer.echo(dump_json(found.to_json()))
        return
    typer.echo(f"{found.n_answers} answers by the method {found.method}, written to {found.path}.")


@app.command()
def verdicts(
    annotations: Annotated[Path, typer.Argument(help="annotations.json of AlpacaEval.")],
    generator: Annotated[
        str | None, typer.Option(help="Whose wins; by default the second output's.")
    ] = None,
    is_json: IsJson = False,
) -> None:
    """Win rates with intervals from AlpacaEval's annotations."""
    from palate.evaluate.alpaca import read_rates

    found = read_rates(annotations, generator=generator)
    if is_json:
        typer.echo(dump_json(found.to_json()))
        return
    table = Table("rate", "value", "95 % interval", title=f"{found.generator} vs {found.rival}")
    shown = {
        "mean probability of a win": found.win_rate,
        "ties left out": found.rates.ties_out,
        "ties half": found.rates.ties_half,
        "ties lost": found.rates.ties_lost,
        "at equal length": found.controlled.rate,
    }
    for name, interval in shown.items():
        if interval is not None:
            ends = f"[{interval.low:.3f}, {interval.high:.3f}]"
            table.add_row(name, f"{interval.estimate:.3f}", ends)
    Console().print(table)
    counted = found.rates
    typer.echo(
        f"{found.win_rate.n} judgments by {found.annotator or 'nobody named'}: "
        f"{counted.n_wins} won, {counted.n_ties} ties, {counted.n_losses} lost; "
        f"{found.n_failed} without a preference left out."
    )


@app.command()
def harness(
    library: LibraryFolder,
    tasks: Annotated[str, typer.Option(help="Names, separated by commas.")],
    include: Annotated[Path | None, typer.Option(help="Folder with tasks of your own.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Examples of each task.")] = None,
    examples: Annotated[
        int | None, typer.Option(min=0, help="Examples shown before each question.")
    ] = None,
    is_chat: Annotated[bool, typer.Option("--chat", help="Ask as in a chat.")] = False,
    preference: PreferenceText = None,
    coefficients: CoefficientsText = None,
    instruction: InstructionText = None,
    method: MethodName = "auto",
    strength: Strength = None,
    base: BasePath = None,
    is_json: IsJson = False,
) -> None:
    """Tasks of the lm-evaluation-harness under one user's method."""
    from palate.evaluate.harness import HarnessModel
    from palate.evaluate.harness_model import HarnessJob, run_harness

    known = known_from_options(
        preference=preference,
        coefficients=coefficients,
        instruction=instruction,
        strength=strength,
    )
    opened = open_for(library, base=base, coefficients=coefficients)
    decision = opened.decide("", known, method=method)
    names = tuple(name.strip() for name in tasks.split(",") if name.strip())
    job = HarnessJob(names, include, limit, examples, with_chat_template=is_chat)
    found = run_harness(HarnessModel(opened, known, method), job)
    content = {"method": decision.method, "coefficients": dict(decision.coefficients), **found}
    if is_json:
        typer.echo(dump_json(content))
        return
    _print(content)


def _print(content: dict[str, Any]) -> None:
    table = Table("task", "metric", "value", title=f"method {content['method']}")
    for task, metrics in content["results"].items():
        for name, value in metrics.items():
            if isinstance(value, float):
                table.add_row(task, name.removesuffix(",none"), f"{value:.4f}")
    Console().print(table)
