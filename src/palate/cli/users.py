"""`palate users` and `palate keys`: the database of users."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.cli import options
from palate.cli.printing import print_result
from palate.core.files import dump_json, write_json

if TYPE_CHECKING:
    from palate.store.database import Database

app = typer.Typer(no_args_is_help=True, help="The database of users.")
keys = typer.Typer(no_args_is_help=True, help="API keys of programs that speak for users.")

Tenant = Annotated[str, typer.Option(help="Tenant that the users belong to.")]
User = Annotated[str, typer.Argument(metavar="USER", help="Identifier of the user.")]


def opened_at(url: str) -> "closing[Database]":
    """The database, closed at the end of a `with`; nothing heavy is imported before."""
    from palate.store.database import open_database

    return closing(open_database(url))


@app.command()
def migrate(
    database: options.DatabaseUrl,
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
    database: options.DatabaseUrl, tenant: Tenant = "default", is_json: options.IsJson = False
) -> None:
    """All users, with the number of items of feedback of each."""
    from palate.store.users import list_users

    with opened_at(database) as opened:
        users = list_users(opened, tenant=tenant)
    rows = [{"user": u.name, "created_at": u.created_at, "n_feedback": u.n_feedback} for u in users]
    print_result(rows, is_json=is_json)


@app.command()
def export(
    user: User,
    database: options.DatabaseUrl,
    tenant: Tenant = "default",
    out: Annotated[Path | None, typer.Option(help="JSON file; printed where absent.")] = None,
) -> None:
    """Everything about one user, as JSON."""
    from palate.store.export import export_user

    with opened_at(database) as opened:
        content = export_user(opened, user=user, tenant=tenant)
    if out is None:
        typer.echo(dump_json(content))
    else:
        write_json(out, content)


@app.command()
def erase(
    user: User,
    database: options.DatabaseUrl,
    tenant: Tenant = "default",
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    is_json: options.IsJson = False,
) -> None:
    """Erase everything about one user; prints a receipt that does not name the user."""
    from palate.store.erase import erase_user

    if not is_sure:
        typer.confirm(f"Erase everything about {user!r}? It cannot be undone", abort=True)
    with opened_at(database) as opened:
        receipt = erase_user(opened, user=user, tenant=tenant)
    print_result(receipt.to_json(), is_json=is_json)


@app.command()
def receipts(
    database: options.DatabaseUrl, tenant: Tenant = "default", is_json: options.IsJson = False
) -> None:
    """Clear what erased users left in the database's files, and show all receipts."""
    from palate.store.erase import clear_erased, list_receipts

    with opened_at(database) as opened:
        clear_erased(opened)
        rows = [receipt.to_json() for receipt in list_receipts(opened, tenant=tenant)]
    print_result(rows, is_json=is_json)


@app.command()
def describe(
    library: options.LibraryFolder,
    user: User,
    text: Annotated[str, typer.Argument(help="How answers should be; empty to take it back.")],
    database: options.DatabaseUrl,
    base: options.BasePath = None,
    is_json: options.IsJson = False,
) -> None:
    """Keep a user's instruction, as a belief for feedback to correct."""
    from palate.library.library import Library
    from palate.library.store import open_store

    with open_store(database, Library.load(library, base=base)) as store:
        reading = store.describe(user, text)
    content = {"objectives": {}} if reading is None else reading.to_json()
    print_result({"user": user, **content}, is_json=is_json)
    if reading is not None and reading.is_empty and not is_json:
        typer.echo("The text says nothing of the library's objectives; the belief stays as it was.")


@app.command()
def withdraw(
    library: options.LibraryFolder,
    user: User,
    feedback: Annotated[
        list[str], typer.Argument(metavar="KEY...", help="As `palate users export` shows them.")
    ],
    database: options.DatabaseUrl,
    base: options.BasePath = None,
    is_json: options.IsJson = False,
) -> None:
    """Take feedback back: the belief is as if it had never been."""
    from palate.library.library import Library
    from palate.library.store import open_store

    with open_store(database, Library.load(library, base=base)) as store:
        rows = [{"key": key, "is_new": store.withdraw(user, key)} for key in feedback]
    print_result(rows, is_json=is_json)


@keys.command()
def issue(
    database: options.DatabaseUrl,
    label: Annotated[str, typer.Option(help="Name of the key, for its owner.")] = "",
    tenant: Tenant = "default",
    role: Annotated[
        str, typer.Option(help="user; admin may also erase users; operator reads /metrics.")
    ] = "user",
    days: Annotated[
        float | None, typer.Option(help="Days until it expires; never where absent.")
    ] = None,
) -> None:
    """Print a new key; it is shown this once, and only its digest is stored."""
    from palate.store.keys import issue_key

    seconds = None if days is None else 86_400 * days
    with opened_at(database) as opened:
        typer.echo(issue_key(opened, tenant=tenant, label=label, role=role, lasts_seconds=seconds))


@keys.command(name="list")
def list_keys(database: options.DatabaseUrl, is_json: options.IsJson = False) -> None:
    """Prefix, tenant and label of all keys."""
    from palate.store.keys import list_keys as keys_in

    with opened_at(database) as opened:
        rows = [vars(key) for key in keys_in(opened)]
    print_result(rows, is_json=is_json)


@keys.command()
def revoke(
    prefix: Annotated[str, typer.Argument(help="As `palate keys list` shows it.")],
    database: options.DatabaseUrl,
) -> None:
    """Stop a key from working, for good."""
    from palate.store.keys import revoke_key

    with opened_at(database) as opened:
        revoke_key(opened, prefix=prefix)
