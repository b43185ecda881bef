"""`palate users`: real voters replayed, and the database of users."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.figures import print_figures
from palate.cli.parse import IsJson, whole_numbers
from palate.core.files import dump_json, write_json

app = typer.Typer(no_args_is_help=True, help="What users want, how it is learned, and kept.")
keys = typer.Typer(no_args_is_help=True, help="Keys of programs that speak for users.")
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
Tenant = Annotated[str, typer.Option(help="Whose users.")]
User = Annotated[str, typer.Argument(metavar="USER", help="Identifier of the user.")]
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
    """Real voters: what a few votes of a new user foretell of the others."""
    from palate.preferences.replay_voters import replay_users

    counts = whole_numbers(votes, what="numbers of votes")
    found = replay_users(data, n_votes=counts, n_repeats=repeats, topics=topic or (), seed=seed)
    if is_json:
        typer.echo(dump_json(found))
        return
    table = Table("topic", "votes", "users", *REPLAYED, "chosen - ridge")
    for row in found["topics"]:
        name = row["topic"] if row["is_enough"] else f"{row['topic']} (too few users)"
        table.add_row(name, str(row["votes"]), str(row["users"]), *_accuracies(row))
    for row in found["mean"]:
        table.add_row(f"mean of {row['topics']} topics", str(row["votes"]), "", *_accuracies(row))
    console = Console()
    console.print(table)
    console.print(f"{found['metric']}; {found['interval']}", highlight=False)


@app.command()
def migrate(
    database: DatabaseUrl,
    to: Annotated[str, typer.Option(help="Schema, `head` for the newest.")] = "head",
    is_json: IsJson = False,
) -> None:
    """Bring the database to a schema, up or down, with its data."""
    from palate.store.administration import migrate_users

    print_figures(migrate_users(database, revision=to), is_json=is_json)


@app.command(name="list")
def list_(database: DatabaseUrl, tenant: Tenant = "default", is_json: IsJson = False) -> None:
    """Who is known, and how much of each."""
    from palate.store.administration import list_users

    found = list_users(database, tenant=tenant)
    if is_json:
        typer.echo(dump_json(found))
        return
    table = Table("user", "items of feedback")
    for row in found:
        table.add_row(row["user"], str(row["n_feedback"]))
    Console().print(table)


@app.command()
def export(
    user: User,
    database: DatabaseUrl,
    tenant: Tenant = "default",
    out: Annotated[Path | None, typer.Option(help="JSON file; printed where absent.")] = None,
) -> None:
    """Everything about one user, as JSON."""
    from palate.store.administration import export_kept

    found = export_kept(database, user=user, tenant=tenant)
    if out is None:
        typer.echo(dump_json(found))
    else:
        write_json(out, found)


@app.command()
def erase(
    user: User,
    database: DatabaseUrl,
    tenant: Tenant = "default",
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    is_json: IsJson = False,
) -> None:
    """Erase everything about one user; prints a receipt that does not name the user."""
    from palate.store.administration import erase_kept

    if not is_sure:
        typer.confirm(f"Erase everything about {user!r}? It cannot be undone", abort=True)
    print_figures(erase_kept(database, user=user, tenant=tenant), is_json=is_json)


@keys.command()
def issue(
    database: DatabaseUrl,
    label: Annotated[str, typer.Option(help="What users call it.")] = "",
    tenant: Tenant = "default",
    role: Annotated[str, typer.Option(help="user, or admin, who may also erase users.")] = "user",
    days: Annotated[
        float | None, typer.Option(help="After which it stops working; never where absent.")
    ] = None,
) -> None:
    """Print a new key; it is shown this once and kept only as a digest."""
    from palate.store.administration import issue_kept_key

    typer.echo(issue_kept_key(database, label=label, tenant=tenant, role=role, days=days))


@keys.command(name="list")
def list_keys(database: DatabaseUrl, is_json: IsJson = False) -> None:
    """Prefix, tenant and label of all keys."""
    from palate.store.administration import list_kept_keys

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
    prefix: Annotated[str, typer.Argument(help="As `palate users keys list` shows it.")],
    database: DatabaseUrl,
) -> None:
    """Stop a key from working, for good."""
    from palate.store.administration import revoke_kept_key

    revoke_kept_key(database, prefix=prefix)


def _accuracies(row: dict[str, Any]) -> list[str]:
    gain = row["ours, chosen - ridge"]
    shown = [f"{100 * row[name]['estimate']:.1f}" for name in REPLAYED]
    return [
        *shown,
        f"{100 * gain['estimate']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]",
    ]
