"""`palate bench NAME`: ratios against what a user would pick instead, with the gate beside them."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.parse import IsJson, Overrides
from palate.core.files import dump_json

app = typer.Typer(no_args_is_help=True, help="Ratios against peers, side by side in one run.")


@app.command()
def bank(overrides: Overrides = None, is_json: IsJson = False) -> None:
    """16 people with 16 coefficient vectors over 8 experts, against peft and a loop."""
    from palate.core.settings import load_settings
    from palate.recipes.bench_bank import BankBenchSettings, bench_bank

    found = bench_bank(load_settings(BankBenchSettings, overrides=overrides or ())).to_json()
    _show(found, is_json=is_json)


@app.command()
def mixture(overrides: Overrides = None, is_json: IsJson = False) -> None:
    """8 experts as rows of one batch, against peft one expert at a time and mixed."""
    from palate.core.settings import load_settings
    from palate.recipes.bench_mixture import MixtureBenchSettings, bench_mixture

    found = bench_mixture(load_settings(MixtureBenchSettings, overrides=overrides or ())).to_json()
    _show(found, is_json=is_json)


@app.command()
def reading(overrides: Overrides = None, is_json: IsJson = False) -> None:
    """Prompts that are known, arrive while others write, or differ in length; against without."""
    from palate.core.settings import load_settings
    from palate.recipes.bench_reading import ReadingBenchSettings, bench_reading

    found = bench_reading(load_settings(ReadingBenchSettings, overrides=overrides or ())).to_json()
    _show(found, is_json=is_json)
    if not is_json:
        Console().print(f"a step of the others alone: {1000 * found['step_seconds']:.1f} ms")


@app.command()
def certificate(overrides: Overrides = None, is_json: IsJson = False) -> None:
    """The worst-case loss from envelope corners, against one linear program per candidate."""
    from palate.core.settings import load_settings
    from palate.recipes.bench_certificate import CertificateBenchSettings, bench_certificate

    settings = load_settings(CertificateBenchSettings, overrides=overrides or ())
    found = bench_certificate(settings).to_json()
    if is_json:
        typer.echo(dump_json(found))
        return
    console = Console()
    _print_gate(console, found["gate"])
    table = Table(
        "objectives", "candidates", "corners", "certificate ms", "one program ms", "faster"
    )
    for race in [*found["races"], found["many"]]:
        table.add_row(
            str(race["n_objectives"]),
            f"{race['n_candidates']:,} {race['candidates']}",
            str(race["n_corners"]),
            f"{1000 * race['median_seconds']:.1f}",
            f"{1000 * race['program_median_seconds']:.2f}",
            f"{race['times_faster']:,.0f}x",
        )
    console.print(table)
    console.print(f"too many corners: certified by {found['too_many_corners']}")


@app.command()
def belief(overrides: Overrides = None, is_json: IsJson = False) -> None:
    """One comparison and whole refits of many people, against scikit-learn and L-BFGS."""
    from palate.core.settings import load_settings
    from palate.recipes.bench_belief import BeliefBenchSettings, bench_belief

    found = bench_belief(load_settings(BeliefBenchSettings, overrides=overrides or ()))
    if is_json:
        typer.echo(dump_json(found))
        return
    Console().print_json(dump_json(found))


@app.command()
def serve(
    library: Annotated[Path, typer.Argument(help="Folder of a library.")],
    overrides: Overrides = None,
    is_json: IsJson = False,
) -> None:
    """Many people at once, against the same server forced to one at a time."""
    from palate.core.settings import load_settings
    from palate.recipes.bench_serve import ServeBenchSettings, bench_serve

    found = bench_serve(library, load_settings(ServeBenchSettings, overrides=overrides or ()))
    if is_json:
        typer.echo(dump_json(found))
        return
    console, gate, ratio = Console(), found["gate"], found["throughput_ratio"]
    console.print(f"gate: {gate['answers_equal_to_one_at_a_time']} of {gate['of']} answers equal")
    table = Table("", "tokens/s", "first token p50, p95 ms", "between tokens p50, p95 ms")
    for name in ("together", "one at a time", "alone"):
        row = found[name]
        spans = [row["first_token_seconds"], row["token_seconds"]]
        shown = [f"{1000 * span['p50']:.1f}, {1000 * span['p95']:.1f}" for span in spans]
        table.add_row(name, f"{row['tokens_per_second_median']:.0f}", *shown)
    console.print(table)
    console.print(
        f"throughput {ratio['median']:.1f}x one at a time, {ratio['minimum']:.1f} to "
        f"{ratio['maximum']:.1f} in {ratio['n_rounds']} rounds",
        highlight=False,
    )


@app.command()
def person(
    library: Annotated[Path, typer.Argument(help="Folder of the small world's library.")],
    people: Annotated[str, typer.Option(help="Who, 0 to 7.")] = "0,3,5,6",
    questions: Annotated[int, typer.Option(min=1, help="That each answers.")] = 20,
    prompts: Annotated[int, typer.Option(min=2, max=96, help="Held-out, judged.")] = 48,
    kills: Annotated[int, typer.Option(min=0, help="Times the server is killed for each.")] = 1,
    database: Annotated[
        str | None, typer.Option("--database", help="URL; a new SQLite file where absent.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    is_json: IsJson = False,
) -> None:
    """Simulated people who teach a server over HTTP, killed on the way; gold rules judge."""
    from palate.cli.parse import whole_numbers
    from palate.recipes.serve_drill import DrillSettings, drill_people

    settings = DrillSettings(
        people=whole_numbers(people, what="people"),
        n_questions=questions,
        n_prompts=prompts,
        n_kills=kills,
        database=database,
        seed=seed,
    )
    found = drill_people(library, settings)
    if is_json:
        typer.echo(dump_json(found))
        return
    table = Table("person", "wants", "base", "learned", "best way", "learned / best")
    for row in found["people"]:
        ratio, gold = row["learned_over_best"], row["gold"]
        table.add_row(
            row["person"],
            row["wants"],
            f"{gold['base']['mean']:.3f}",
            f"{gold['learned']['mean']:.3f}",
            f"{row['best_method']} {gold[row['best_method']]['mean']:.3f}",
            f"{ratio['ratio']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]",
        )
    Console().print(table)


@app.command()
def gpu(overrides: Overrides = None, is_json: IsJson = False) -> None:
    """Decode steps of many people and of all experts on a GPU; at toy size where there is none."""
    from palate.core.settings import load_settings
    from palate.recipes.bench_gpu import GpuBenchSettings, bench_gpu

    found = bench_gpu(load_settings(GpuBenchSettings, overrides=overrides or ())).to_json()
    if is_json:
        typer.echo(dump_json(found))
        return
    console = Console()
    console.print(f"{found['device']}{'; ' + found['note'] if found['note'] else ''}")
    _print_gate(console, found["gate"])
    for n, ratio in found["soup_step_over_base"].items():
        console.print(f"soups, {n} people: {ratio:.2f}x a base step")
    ratio = found["mixture_step_over_base"]
    console.print(f"mixture, 1 person: {ratio:.2f}x a base step")
    ratio = found["head_experts_step_over_base"]
    console.print(f"the same of experts on the head, in one pass: {ratio:.2f}x a base step")
    for line in found["not_measured"]:
        console.print(f"not measured: {line}")


def _show(found: dict[str, Any], *, is_json: bool) -> None:
    """A race in phases: gate first, then one table per phase."""
    if is_json:
        typer.echo(dump_json(found))
        return
    console = Console()
    _print_gate(console, found["gate"])
    if "theory_overhead_fraction" in found:
        console.print(f"extra work in theory {found['theory_overhead_fraction']:.1%} of the base's")
    for phase, figures in found["phases"].items():
        _print_phase(console, phase, figures)
    if "head_experts_step_over_base" in found:
        ratio = found["head_experts_step_over_base"]
        console.print(f"experts on the head: {ratio:.2f}x a step of the base alone")


def _print_gate(console: Console, gate: dict[str, Any]) -> None:
    console.print(
        f"gate: largest difference {gate['largest_difference']:.1e}, limit {gate['limit']:.0e}"
    )


def _print_phase(console: Console, phase: str, figures: dict[str, Any]) -> None:
    table = Table(phase, "minimum ms", "median ms", "ours is faster by", title_justify="left")
    for name, ratio in figures["times_faster_than"].items():
        table.add_row(
            name,
            f"{1000 * figures['minimum_seconds'][name]:.2f}",
            f"{1000 * figures['median_seconds'][name]:.2f}",
            f"{ratio:.2f}x",
        )
    console.print(table)
