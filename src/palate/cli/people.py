"""`palate people`: real voters replayed, simulated people, and the database of people."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.parse import IsJson
from palate.core.errors import InvalidInputError
from palate.core.files import dump_json, write_json

app = typer.Typer(no_args_is_help=True, help="What people want, how it is learned, and kept.")
keys = typer.Typer(no_args_is_help=True, help="Keys of programs that speak for people.")
app.add_typer(keys, name="keys")

DataFolder = Annotated[
    Path, typer.Argument(metavar="DATA_DIR", help="Holds items.jsonl and votes.jsonl.")
]
Topics = Annotated[list[str] | None, typer.Option("--topic", help="Only this topic; repeatable.")]
Seed = Annotated[int, typer.Option(help="Of everything that is drawn.")]
DatabaseUrl = Annotated[
    str,
    typer.Option(
        "--database", envvar="PALATE_DATABASE", help="sqlite:///FILE, a path, or postgresql://..."
    ),
]
Tenant = Annotated[str, typer.Option(help="Whose people.")]
Person = Annotated[str, typer.Argument(metavar="PERSON", help="Identifier of the person.")]
REPLAYED = ("population", "ridge", "ours, random", "ours, chosen", "control")


@app.command()
def replay(
    data: DataFolder,
    votes: Annotated[str, typer.Option(help="Numbers of votes shown.")] = "0,5,10,20,40",
    repeats: Annotated[int, typer.Option(min=1, help="Times that all is drawn anew.")] = 1,
    topic: Topics = None,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """Real voters: what a few votes of a new person foretell of the others."""
    from palate.recipes.people_replay import replay_people

    counts = _counts(votes)
    found = replay_people(data, n_votes=counts, n_repeats=repeats, topics=topic or (), seed=seed)
    if is_json:
        typer.echo(dump_json(found))
        return
    table = Table("topic", "votes", "people", *REPLAYED, "chosen - ridge")
    for row in found["topics"]:
        name = row["topic"] if row["is_enough"] else f"{row['topic']} (too few people)"
        table.add_row(name, str(row["votes"]), str(row["people"]), *_accuracies(row))
    for row in found["mean"]:
        table.add_row(f"mean of {row['topics']} topics", str(row["votes"]), "", *_accuracies(row))
    console = Console()
    console.print(table)
    console.print(f"{found['metric']}; {found['interval']}", highlight=False)


@app.command()
def portfolio(
    data: DataFolder,
    size: Annotated[int, typer.Option(min=1, help="How many answer sets.")] = 4,
    topic: Topics = None,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """Real voters: a few answer sets for everybody, against other ways to choose them."""
    from palate.recipes.people_portfolio import METHODS, choose_people_portfolio

    found = choose_people_portfolio(data, size=size, topics=topic or (), seed=seed)
    if is_json:
        typer.echo(dump_json(found))
        return
    table = Table("topic", "people", *METHODS, title="mean / worst tenth", title_justify="left")
    for row in found["topics"]:
        shown = [
            f"{row[name]['mean']['estimate']:.3f} / {row[name]['worst_tenth']:.3f}"
            for name in METHODS
        ]
        table.add_row(row["topic"], str(row["people"]), *shown)
    console = Console()
    console.print(table)
    console.print(found["utility"], highlight=False)


@app.command()
def study(
    objectives: Annotated[int, typer.Option(min=2, help="Of each preference.")] = 4,
    people: Annotated[int, typer.Option(min=2, help="Simulated people.")] = 200,
    questions: Annotated[int, typer.Option(min=40, help="Most chosen questions.")] = 80,
    random_questions: Annotated[int, typer.Option(min=40, help="Most random questions.")] = 300,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """Simulated people: chosen against random questions, and coverage of credible regions."""
    from palate.recipes.people_study import Study, study_questions

    found = study_questions(
        Study(n_objectives=objectives, n_people=people, n_questions=questions, seed=seed),
        n_random=random_questions,
    )
    _print(found, is_json=is_json)


@app.command()
def coverage(
    coefficients: Annotated[int, typer.Option(min=1, help="Of each person.")] = 8,
    comparisons: Annotated[str, typer.Option(help="Numbers of comparisons.")] = "10,30,100",
    people: Annotated[int, typer.Option(min=10, help="Simulated people.")] = 2000,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """Simulated people: how often regions of coefficients hold the truth."""
    from palate.recipes.people_coverage import study_coverage

    found = study_coverage(
        n_coefficients=coefficients,
        comparisons=_counts(comparisons),
        n_people=people,
        seed=seed,
    )
    _print(found, is_json=is_json)


@app.command()
def drift(
    objectives: Annotated[int, typer.Option(min=2, help="Of each preference.")] = 4,
    people: Annotated[int, typer.Option(min=2, help="Simulated people.")] = 100,
    change_at: Annotated[int, typer.Option(min=1, help="Comparisons before the change.")] = 50,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """Simulated people who change their taste: recovery, and what looking for changes costs."""
    from palate.recipes.people_study import Study, study_drift

    chosen = Study(n_objectives=objectives, n_people=people, change_at=change_at, seed=seed)
    _print(study_drift(chosen), is_json=is_json)


@app.command()
def drill(
    database: DatabaseUrl,
    processes: Annotated[int, typer.Option(min=1, help="Writers at once.")] = 8,
    rows: Annotated[int, typer.Option(min=1, help="Of each writer.")] = 1000,
    people: Annotated[int, typer.Option(min=1, help="That all write about.")] = 50,
    kills: Annotated[int, typer.Option(min=0, help="Writers killed and started again.")] = 2,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """Crash drill on a new database: writers are killed, no acknowledged row may be lost."""
    from palate.recipes.people_drill import Drill, require_passed, run_drill

    found = run_drill(Drill(database, processes, rows, people, kills, seed))
    _print(found, is_json=is_json)
    require_passed(found)


@app.command()
def migrate(
    database: DatabaseUrl,
    to: Annotated[str, typer.Option(help="Schema, `head` for the newest.")] = "head",
    is_json: IsJson = False,
) -> None:
    """Bring the database to a schema, up or down, with its data."""
    from palate.recipes.people_kept import migrate_people

    _print(migrate_people(database, revision=to), is_json=is_json)


@app.command(name="list")
def list_(database: DatabaseUrl, tenant: Tenant = "default", is_json: IsJson = False) -> None:
    """Who is known, and how much of each."""
    from palate.recipes.people_kept import list_people

    found = list_people(database, tenant=tenant)
    if is_json:
        typer.echo(dump_json(found))
        return
    table = Table("person", "items of feedback")
    for row in found:
        table.add_row(row["person"], str(row["n_feedback"]))
    Console().print(table)


@app.command()
def export(
    person: Person,
    database: DatabaseUrl,
    tenant: Tenant = "default",
    out: Annotated[Path | None, typer.Option(help="JSON file; printed where absent.")] = None,
) -> None:
    """Everything about one person, as JSON."""
    from palate.recipes.people_kept import export_kept

    found = export_kept(database, person=person, tenant=tenant)
    if out is None:
        typer.echo(dump_json(found))
    else:
        write_json(out, found)


@app.command()
def erase(
    person: Person,
    database: DatabaseUrl,
    tenant: Tenant = "default",
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    is_json: IsJson = False,
) -> None:
    """Erase everything about one person; prints a receipt that does not name the person."""
    from palate.recipes.people_kept import erase_kept

    if not is_sure:
        typer.confirm(f"Erase everything about {person!r}? It cannot be undone", abort=True)
    _print(erase_kept(database, person=person, tenant=tenant), is_json=is_json)


@keys.command()
def issue(
    database: DatabaseUrl,
    label: Annotated[str, typer.Option(help="What people call it.")] = "",
    tenant: Tenant = "default",
    role: Annotated[str, typer.Option(help="user, or admin, who may also erase people.")] = "user",
    days: Annotated[
        float | None, typer.Option(help="After which it stops working; never where absent.")
    ] = None,
) -> None:
    """Print a new key; it is shown this once and kept only as a digest."""
    from palate.recipes.people_kept import issue_kept_key

    typer.echo(issue_kept_key(database, label=label, tenant=tenant, role=role, days=days))


@keys.command(name="list")
def list_keys(database: DatabaseUrl, is_json: IsJson = False) -> None:
    """Prefix, tenant and label of all keys."""
    from palate.recipes.people_kept import list_kept_keys

    found = list_kept_keys(database)
    if is_json:
        typer.echo(dump_json(found))
        return
    table = Table("prefix", "tenant", "label", "revoked")
    for row in found:
        table.add_row(row["prefix"], row["tenant"], row["label"], str(row["is_revoked"]))
    Console().print(table)


@keys.command()
def revoke(
    prefix: Annotated[str, typer.Argument(help="As `palate people keys list` shows it.")],
    database: DatabaseUrl,
) -> None:
    """Stop a key from working, for good."""
    from palate.recipes.people_kept import revoke_kept_key

    revoke_kept_key(database, prefix=prefix)


def _counts(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InvalidInputError(
            f"The numbers {text!r} are not whole numbers separated by commas."
        ) from error


def _accuracies(row: dict[str, Any]) -> list[str]:
    gain = row["ours, chosen - ridge"]
    shown = [f"{100 * row[name]['estimate']:.1f}" for name in REPLAYED]
    return [
        *shown,
        f"{100 * gain['estimate']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]",
    ]


def _print(found: dict[str, Any], *, is_json: bool) -> None:
    if is_json:
        typer.echo(dump_json(found))
        return
    table = Table("", "", show_header=False)
    for name, value in _flat(found).items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)


def _flat(found: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in found.items():
        label = f"{prefix}{name}".replace("_", " ")
        flat |= _flat(value, f"{label}: ") if isinstance(value, dict) else {label: value}
    return flat
