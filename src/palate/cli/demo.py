"""`palate demo`: one prompt, eight users."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from palate.cli.parse import IsJson
from palate.core.files import dump_json

if TYPE_CHECKING:
    from palate.demo.page import DemoReport


def demo(
    out: Annotated[Path, typer.Option(help="Folder for library and report.")] = Path("out/demo"),
    prompt: Annotated[str | None, typer.Option(help="What everybody asks.")] = None,
    n_prompts: Annotated[int, typer.Option("--prompts", help="Prompts behind the table.")] = 48,
    seed: Annotated[int, typer.Option(help="Of everything.")] = 0,
    is_json: IsJson = False,
) -> None:
    """The whole story on the embedded world: train experts, answer eight users, judge, report."""
    from palate.demo.run import DemoSettings, demo_json, run_demo

    report = run_demo(DemoSettings(out, prompt=prompt, n_prompts=n_prompts, seed=seed))
    if is_json:
        typer.echo(dump_json(demo_json(report)))
        return
    console = Console()
    _print_answers(console, report)
    console.print(_gold_table(report))
    over = report.over_prompt
    console.print(
        f"What users get beats the base on all three wanted objectives for "
        f"{report.n_users_served} of {len(report.users)} users, and a system prompt by "
        f"{over.mean:+.2f} [{over.low:+.2f}, {over.high:+.2f}] in utility. The gold rules judge: "
        "the annotators' labels, from which rewards were learned, are these plus noise."
    )
    console.print(f"Library: {out / 'library'}   Report: {out / 'report.html'}", markup=False)


def _print_answers(console: Console, report: "DemoReport") -> None:
    console.print(f"\n[bold]{report.prompt}[/bold]\n")
    panels = [Panel(report.base_answer, title="base", subtitle="nobody's taste", width=58)]
    panels += [
        Panel(user.answer, title=user.name, subtitle=user.label, width=58) for user in report.users
    ]
    console.print(Columns(panels))


def _gold_table(report: "DemoReport") -> Table:
    title = f"mean gold reward, {report.n_prompts} held-out prompts (bold: what is wanted)"
    table = Table("answers by", *report.objectives, "well-formed", title=title)
    for place, row in enumerate(report.rows):
        if place in (1, 1 + len(report.experts)):
            table.add_section()
        cells = [
            f"[bold]{cell.mean:.2f}[/bold]" if cell.is_wanted else f"[dim]{cell.mean:.2f}[/dim]"
            for cell in row.cells
        ]
        table.add_row(row.name, *cells, f"{100 * row.well_formed:.1f} %")
    return table
