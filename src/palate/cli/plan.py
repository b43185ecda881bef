"""How `palate scale plan` looks: the table, what breaks first, and where the constants are from."""

from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 140  # of the table
UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def show_plan(found: dict[str, Any]) -> None:
    """Print the plan."""
    console = Console(width=max(Console().width, WIDTH))
    settings, model, one = found["settings"], found["model"], found["one_device"]
    console.print(
        f"{settings['model']} on {settings['device']}: base {short(model['bytes'])}B, "
        f"{settings['n_experts']} experts {short(model['bytes_of_all_experts'])}B, cache "
        f"{model['cache_bytes_per_token']:,} bytes a token; one device "
        f"{one['answers_together']} answers together, {one['tokens_per_second']:,.0f} tokens a "
        f"second ({found['estimates']})"
    )
    table = Table(
        "people",
        "answers/s",
        "tokens/s",
        "at once",
        "cache",
        "devices",
        "their state",
        "an expert each",
        "feedback/s",
        "feedback rows",
        "database",
        "refit",
    )
    for row in found["rows"]:
        table.add_row(
            short(row["people"]),
            short(row["answers_per_second"]),
            short(row["tokens_per_second"]),
            short(row["answers_at_once"]),
            f"{short(row['cache_bytes'])}B",
            f"{row['devices']:,}",
            f"{short(row['coefficient_bytes'])}B",
            f"{short(row['bytes_of_an_expert_each'])}B",
            short(row["feedback_per_second"]),
            short(row["feedback_rows"]),
            f"{short(row['database_bytes'])}B",
            f"{short(row['refit_seconds'])}s",
        )
    console.print(table)
    library = found["library"]
    console.print(
        f"the library, however many people: {library['library_hours']:.1f} device hours "
        f"({library['rollout_hours']:.2f} for rollouts, {library['expert_hours']:.2f} an expert, "
        f"{library['payoff_hours']:.2f} for the payoff table), "
        f"{short(library['training_bytes'])}B while an expert is trained"
    )
    breaks = Table("one is not enough of", "from people", "then")
    for limit in found["breaks"]:
        breaks.add_row(limit["what"], f"{limit['people']:,.0f}", limit["remedy"])
    console.print(breaks)
    sources = Table("measured", "value", "by", "report")
    for name, constant in found["constants"].items():
        sources.add_row(name, f"{constant['value']:,g}", constant["command"], constant["report"])
    console.print(sources)


def short(value: float) -> str:
    """Three digits and a unit: 12300 is 12.3k."""
    for size, letter in UNITS:
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
