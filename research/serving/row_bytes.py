"""How many bytes a user, an answer and a judgement take in a database.

A new PostgreSQL is filled through the functions that the server uses, and says itself how large its
tables became, indices included. Texts are random letters, which compress less than prose.
"""

from typing import Annotated, Any

import numpy as np
import typer
from pydantic import Field
from sqlalchemy import text

from palate.core.errors import InvalidInputError
from palate.core.files import dump_json
from palate.core.progress import progress_of
from palate.core.seeds import generator_for
from palate.core.settings import Settings, load_settings
from palate.core.types import Belief, Feedback
from palate.preferences.belief import Learner
from palate.serve.replicas import require_shared
from palate.store.database import Database, open_database
from palate.store.responses import Response, record_response
from palate.store.store import SqlProfileStore
from palate.store.users import add_user
from research.command_line import IsJson, Overrides, run

LETTERS = "etaoinshrdlu "
CHARACTERS_A_TOKEN = 4
TABLES = ("users", "beliefs", "responses", "feedback")


class RowSettings(Settings):
    """What is written.

    Attributes:
        n_users: Made.
        n_answers: Shown to each, one answer a response.
        n_feedback: Items of each.
        n_experts: Width of features and beliefs.
        prompt_tokens: Of a prompt, four letters each.
        answer_tokens: Of an answer, with their ids.
        seed: Of texts and numbers.
    """

    n_users: int = Field(default=1000, ge=1)
    n_answers: int = Field(default=5, ge=1)
    n_feedback: int = Field(default=5, ge=1)
    n_experts: int = Field(default=8, ge=1)
    prompt_tokens: int = Field(default=1024, ge=1)
    answer_tokens: int = Field(default=256, ge=1)
    seed: int = 0


def measure_rows(url: str, settings: RowSettings) -> dict[str, Any]:
    """Bytes on disk of a user (with belief), of an answer shown and of an item of feedback.

    Raises:
        InvalidInputError: the database is not PostgreSQL, or holds users already.
    """
    require_shared(url)
    database = open_database(url)
    prior = Belief(np.zeros(settings.n_experts), np.eye(settings.n_experts))
    store = SqlProfileStore(database, Learner(prior))
    try:
        if store.users():
            raise InvalidInputError(
                "Rows are measured in a database without users; give a new one."
            )
        names = [f"user {place}" for place in range(settings.n_users)]
        with progress_of("write rows") as report:
            _make_users(database, names)
            report(1, 3)
            _show(database, names, settings)
            report(2, 3)
            _judge(store, names, settings)
            report(3, 3)
        sizes = {name: _size(database, name) for name in TABLES}
    finally:
        database.close()
    n_users = settings.n_users
    return {
        "settings": settings.model_dump(),
        "table_bytes": sizes,
        "bytes_per_user": (sizes["users"] + sizes["beliefs"]) / n_users,
        "bytes_per_answer": sizes["responses"] / (n_users * settings.n_answers),
        "bytes_per_feedback": sizes["feedback"] / (n_users * settings.n_feedback),
    }


def _size(database: Database, table: str) -> int:
    """Bytes of the table, its indices and its long values."""
    with database.reading() as connection:
        found = connection.execute(text("SELECT pg_total_relation_size(:name)"), {"name": table})
        return int(found.scalar_one())


def _make_users(database: Database, names: list[str]) -> None:
    for name in names:
        add_user(database, tenant="default", name=name)


def _show(database: Database, names: list[str], s: RowSettings) -> None:
    generator = generator_for(s.seed, "rows", "texts")
    for name in names:
        for place in range(s.n_answers):
            features = generator.standard_normal(s.n_experts).tolist()
            record_response(
                database,
                Response(
                    id=f"chatcmpl-{generator.bytes(16).hex()}",
                    user=name,
                    prompt=_text(generator, s.prompt_tokens),
                    shown=(_text(generator, s.answer_tokens),),
                    features=(tuple(features),),
                    method="soup",
                    coefficients={
                        f"expert {k}": float(generator.random()) for k in range(s.n_experts)
                    },
                    seed=place,
                    tokens=(tuple(generator.integers(100_000, size=s.answer_tokens).tolist()),),
                ),
            )


def _judge(store: SqlProfileStore, names: list[str], s: RowSettings) -> None:
    generator = generator_for(s.seed, "rows", "feedback")
    for name in names:
        for _ in range(s.n_feedback):
            store.append(
                Feedback(
                    user=name,
                    kind="comparison",
                    features=tuple(generator.standard_normal(s.n_experts).tolist()),
                    label=float(generator.integers(2)),
                    key=f"chatcmpl-{generator.bytes(16).hex()}/comparison/0",
                )
            )


def _text(generator: np.random.Generator, n_tokens: int) -> str:
    letters = generator.integers(len(LETTERS), size=CHARACTERS_A_TOKEN * n_tokens)
    return "".join(LETTERS[k] for k in letters.tolist())


def main(
    *,
    database: Annotated[str, typer.Option(help="postgresql://..., without users.")],
    overrides: Overrides = None,
    is_json: IsJson = False,
) -> None:
    """Bytes that a user, an answer and an item of feedback take in PostgreSQL."""
    found = measure_rows(database, load_settings(RowSettings, overrides=overrides or ()))
    if is_json:
        typer.echo(dump_json(found))
        return
    for name in ("user", "answer", "feedback"):
        typer.echo(f"{found[f'bytes_per_{name}']:,.0f} bytes per {name}")


if __name__ == "__main__":
    run(main)
