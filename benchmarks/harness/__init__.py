"""Tasks of the lm-evaluation-harness under one user's method: what is left of a base's abilities.

python -m benchmarks.harness LIBRARY --tasks gsm8k --preference elementary=1 --limit 50
"""

from pathlib import Path
from typing import Annotated

import typer

from palate.cli import options
from palate.cli.printing import print_result


def main(  # noqa: PLR0913  (its options)
    library: options.LibraryOrBase,
    *,
    tasks: Annotated[str, typer.Option(help="Names, separated by commas.")],
    include: Annotated[Path | None, typer.Option(help="Folder with tasks of your own.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Examples of each task.")] = None,
    examples: Annotated[
        int | None, typer.Option(min=0, help="Examples shown before each question.")
    ] = None,
    is_chat: Annotated[bool, typer.Option("--chat", help="Ask as in a chat.")] = False,
    preference: options.PreferenceText = None,
    coefficients: options.CoefficientsText = None,
    instruction: options.InstructionText = None,
    method: options.MethodName = "auto",
    strength: options.Strength = None,
    base: options.BasePath = None,
    is_json: options.IsJson = False,
) -> None:
    """Tasks of the lm-evaluation-harness under one user's method."""
    from benchmarks.harness.library import HarnessModel
    from benchmarks.harness.model import HarnessJob, run_harness

    opened, known = options.open_for_user(
        library,
        base=base,
        preference=preference,
        coefficients=coefficients,
        instruction=instruction,
        strength=strength,
    )
    decision = opened.decide("", known, method=method)
    names = tuple(name.strip() for name in tasks.split(",") if name.strip())
    job = HarnessJob(names, include, limit, examples, with_chat_template=is_chat)
    results = run_harness(HarnessModel(opened, known, method), job)
    content = {"method": decision.method, "coefficients": dict(decision.coefficients), **results}
    print_result(content, is_json=is_json)
