"""Pages and reports from Jinja templates that lie beside the code that fills them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape


def render_template(path: Path, filters: Mapping[str, Callable[..., str]], **values: Any) -> str:
    """The filled template; texts are escaped where it is HTML."""
    environment = Environment(
        loader=FileSystemLoader(path.parent),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(path.name).render(**values)


def render_sentences(
    path: Path, filters: Mapping[str, Callable[..., str]], **values: Any
) -> list[str]:
    """The filled template's paragraphs, one line each, however the template breaks lines."""
    text = render_template(path, filters, **values)
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]
