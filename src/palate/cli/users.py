"""`palate users` and `palate keys`: the database of users, and replays of real voters."""

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from palate.cli import options
from palate.cli.printing import print_result
from palate.core.files import dump_json, write_json

app = typer.Typer(no_args_is_help=True, help="The database of users, and replays of real voters.")
keys = typer.Typer(no_args_is_help=True, help="API keys of programs that speak for users.")

DatabaseUrl = Annotated[
    str,
    typer.Option(
        "--database", envvar="PALATE_DATABASE", help="sqlite:///FILE, a path, or postgresql://..."
    ),
]
Tenant = Annotated[str, typer.Option(help="Tenant that the users belong to.")]
PREDICTORS = ("population", "ridge", "ours, random", "ours, chosen", "control")
User = Annotated[str, typer.Argument(metavar="USER", help="Identifier of the user.")]


@app.command()
def replay(
    data: Annotated[
        Path, typer.Argument(metavar="DATA_DIR", help="Holds items.jsonl and votes.jsonl.")
    ],
    votes: Annotated[str, typer.Option(help="Numbers of votes shown.")] = "0,5,10,20,40",
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions, each with new splits.")] = 1,
    topic: Annotated[
        list[str] | None, typer.Option("--topic", help="Only this topic; repeatable.")
    ] = None,
    seed: options.Seed = 0,
    is_json: options.IsJson = False,
) -> None:
    """Real voters: how well a few votes of a new user predict the others."""
    from palate.preferences.replay_voters import replay_users

    counts = options.whole_numbers(votes, what="numbers of votes")
    replayed = replay_users(data, n_votes=counts, n_repeats=repeats, topics=topic or (), seed=seed)
    if not is_json:
        replayed |= {
            part: [_accuracies(row) for row in replayed[part]] for part in ("topics", "mean")
        }
    print_result(replayed, is_json=is_json)


@app.command()
def migrate(
    database: DatabaseUrl,
    to: Annotated[str, typer.Option(help="Schema, `head` for the newest.")] = "head",
    is_json: options.IsJson = False,
) -> None:
    """Bring the database to a schema, up or down, with its data."""
    from palate.store.database import connect, known_revisions, migrate, schema_revision

    with closing(connect(database)) as opened:
        before, after = schema_revision(opened), migrate(opened, revision=to)
    schemas = {"before": before, "after": after, "newest": known_revisions()[0]}
    print_result(schemas, is_json=is_json)


@app.command(name="list")
def list_(
    database: DatabaseUrl, tenant: Tenant = "default", is_json: options.IsJson = False
) -> None:
    """All users, with the number of items of feedback of each."""
    from palate.store.database import open_database
    from palate.store.users import list_users

    with closing(open_database(database)) as opened:
        users = list_users(opened, tenant=tenant)
    rows = [{"user": u.name, "created_at": u.created_at, "n_feedback": u.n_feedback} for u in users]
    print_result(rows, is_json=is_json)


@app.command()
def export(
    user: User,
    database: DatabaseUrl,
    tenant: Tenant = "default",
    out: Annotated[Path | None, typer.Option(help="JSON file; printed where absent.")] = None,
) -> None:
    """Everything about one user, as JSON."""
    from palate.store.database import open_database
    from palate.store.export import export_user

    with closing(open_database(database)) as opened:
        content = export_user(opened, user=user, tenant=tenant)
    if out is None:
        typer.echo(dump_json(content))
    else:
        write_json(out, content)


@app.command()
def erase(
    user: User,
    database: DatabaseUrl,
    tenant: Tenant = "default",
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    is_json: options.IsJson = False,
) -> None:
    """Erase everything about one user; prints a receipt that does not name the user."""
    from palate.store.database import open_database
    from palate.store.erase import erase_user

    if not is_sure:
        typer.confirm(f"Erase everything about {user!r}? It cannot be undone", abort=True)
    with closing(open_database(database)) as opened:
        receipt = erase_user(opened, user=user, tenant=tenant)
    print_result(receipt.to_json(), is_json=is_json)


@keys.command()
def issue(
    database: DatabaseUrl,
    label: Annotated[str, typer.Option(help="Name of the key, for its owner.")] = "",
    tenant: Tenant = "default",
    role: Annotated[str, typer.Option(help="user, or admin, who may also erase users.")] = "user",
    days: Annotated[
        float | None, typer.Option(help="Days until it expires; never where absent.")
    ] = None,
) -> None:
    """Print a new key; it is shown this once, and only its digest is stored."""
    from palate.store.database import open_database
    from palate.store.keys import issue_key

    seconds = None if days is None else 86_400 * days
    with closing(open_database(database)) as opened:
        typer.echo(issue_key(opened, tenant=tenant, label=label, role=role, lasts_seconds=seconds))


@keys.command(name="list")
def list_keys(database: DatabaseUrl, is_json: options.IsJson = False) -> None:
    """Prefix, tenant and label of all keys."""
    from palate.store.database import open_database
    from palate.store.keys import list_keys as keys_in

    with closing(open_database(database)) as opened:
        rows = [vars(key) for key in keys_in(opened)]
    print_result(rows, is_json=is_json)


@keys.command()
def revoke(
    prefix: Annotated[str, typer.Argument(help="As `palate keys list` shows it.")],
    database: DatabaseUrl,
) -> None:
    """Stop a key from working, for good."""
    from palate.store.database import open_database
    from palate.store.keys import revoke_key

    with closing(open_database(database)) as opened:
        revoke_key(opened, prefix=prefix)


def _accuracies(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row that fit on a terminal."""
    means = f"mean of {row['topics']} topics" if "topics" in row else ""
    users = "" if means else f"{row['topic']}, {row['users']} users"
    few = "" if row.get("is_enough", True) else " (too few)"
    named = {name: row[name]["estimate"] for name in PREDICTORS}
    gain = "ours, chosen - ridge"
    return {"topic": f"{means}{users}{few}", "votes": row["votes"], **named, gain: row[gain]}
