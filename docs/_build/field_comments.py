"""For the site: what a class says of its fields in comments, as the fields' docstrings."""

import ast
import re
from collections.abc import Sequence
from typing import Any


def comment_of(item: ast.stmt, lines: Sequence[str]) -> str:
    """The comment at the end of a statement's last line, else the comment lines above it."""
    last = lines[(item.end_lineno or item.lineno) - 1][item.end_col_offset or 0 :]
    beside = re.match(r"\s*#\s*(.*)", last)
    if beside and not beside[1].startswith("noqa"):
        return beside[1]
    above: list[str] = []
    place = item.lineno - 2
    while place >= 0 and lines[place].strip().startswith("#"):
        above.insert(0, lines[place].strip().removeprefix("#").strip())
        place -= 1
    return " ".join(above)


try:
    import griffe
except ModuleNotFoundError:  # where settings_reference.py is run
    pass
else:

    class FieldComments(griffe.Extension):
        """Gives fields of classes without a docstring the comment beside them."""

        def on_attribute_instance(self, *, node: Any, attr: Any, **_others: Any) -> None:
            """Called for every attribute that is read from the source."""
            if attr.docstring is None and isinstance(node, ast.AnnAssign):
                text = comment_of(node, attr.lines_collection[attr.filepath])
                if text:
                    text = text[0].upper() + text[1:].rstrip(".") + "."
                    attr.docstring = griffe.Docstring(text, parent=attr)
