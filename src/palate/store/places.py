"""Which number of a stored vector of features is which expert's.

A database belongs to one library, and its vectors have a number for every expert that the library
ever had, in the order in which they came. Where a vector is shorter, later experts were not there:
their features count as zero, so that what was learned says nothing of them.
"""

import json
from collections.abc import Sequence

from sqlalchemy import select, update

from palate.core.errors import FormatError
from palate.store.database import Database
from palate.store.rows import insert_if_absent
from palate.store.tables import marks
from palate.store.users import require_mark

EXPERTS, LIBRARY = "experts", "library"
REMEDY = "feedback speaks of one library's experts, so give each library its own database"


def places_of(
    database: Database,
    *,
    library: str,
    base: str,
    experts: Sequence[Sequence[str]],
    is_renewed: bool = False,
) -> tuple[int, ...]:
    """The place of each expert's number in the database's vectors; new experts get the next ones.

    Args:
        database: An empty one belongs to the library from then on.
        library: Hash of base and experts.
        base: Hash of the base.
        experts: `[experts]`, each a name and the hash of what made it.
        is_renewed: Whether the library lost experts while it was served, which is refused else.

    Raises:
        FormatError: the database belongs to another library.
    """
    wanted = [list(expert) for expert in experts]
    with database.reading() as connection:
        is_new = connection.execute(select(marks).where(marks.c.name == EXPERTS)).first() is None
    if is_new:
        require_mark(database, name=LIBRARY, value=library, remedy=REMEDY)
    with database.writing() as connection:
        first = json.dumps({"base": base, "all": wanted, "now": wanted})
        insert_if_absent(connection, marks, name=EXPERTS, value=first)
        query = select(marks.c.value).where(marks.c.name == EXPERTS).with_for_update()
        mark = json.loads(connection.execute(query).scalar_one())
        has_all = is_renewed or all(expert in wanted for expert in mark["now"])
        if mark["base"] == base and has_all:
            known = [*mark["all"], *(expert for expert in wanted if expert not in mark["all"])]
            value = json.dumps({"base": base, "all": known, "now": wanted})
            for name, new in ((EXPERTS, value), (LIBRARY, library)):
                connection.execute(update(marks).where(marks.c.name == name).values(value=new))
            return tuple(known.index(expert) for expert in wanted)
    raise FormatError(
        f"The database belongs to the library of the experts {', '.join(e[0] for e in mark['now'])}"
        f", not of {', '.join(e[0] for e in wanted)}; {REMEDY}."
    )
