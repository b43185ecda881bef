"""Words of a dialect that the field has a word for, and where they still stand.

Prose is text in documents, docstrings, comments and strings; a name is an identifier in code. Some
words are wrong only as names (`found` is a fine verb and a bad variable).
"""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

BANNED = {
    "person": "user",
    "persons": "users",
    "people": "users",
    "taste": "preference",
    "tastes": "preferences",
    "wish": "instruction, or preference",
    "wishes": "instructions, or preferences",
    "told": "prompted, or conditioned on",
    "untold": "without a prompt",
    "told apart": "significantly different",
    "lane": "sequence",
    "lanes": "sequences",
    "read in parts": "chunked prefill",
    "workshop": "builder",
    "crew": "process pool",
    "drill": "fault-injection test",
    "arm": "method",
}
BANNED_NAMES = {
    "way": "method",
    "ways": "methods",
    "found": "result",
    "asked": "request",
    "kept": "what it is",
    "said": "what it is",
    "told": "prompted",
    "made": "what it is",
    "drawn": "sampled",
    "live": "running",
    "room": "context length",
    "gone": "disconnected",
    "edge": "middleware",
    "kit": "context",
    "meter": "estimator",
}
PROSE = re.compile(
    r"(?<![\w'-])(" + "|".join(sorted(BANNED, key=len, reverse=True)) + r")(?![\w-])", re.IGNORECASE
)
ALLOWED = (  # schemas as they were, and the old names that the server refuses
    "src/palate/store/migrations/versions/",
    "src/palate/serve/renamed.py",
)


def banned_words(root: Path) -> list[str]:
    """`file:line: word, use ...` of every banned word in the package, documents and README."""
    paths = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    paths += sorted((root / "src").rglob("*.py"))
    paths += sorted(p for end in ("html", "js", "css") for p in (root / "src").rglob(f"*.{end}"))
    places = []
    for path in paths:
        name = str(path.relative_to(root))
        if not name.startswith(ALLOWED) and name != "docs/log.md":
            places += [f"{name}:{text}" for text in _in_text(path.read_text())]
            if path.suffix == ".py":
                places += [f"{name}:{text}" for text in _in_names(path.read_text())]
    return places


def _in_text(text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        for match in PROSE.finditer(line):
            word = match[1].lower()
            yield f"{number}: {word}, use {BANNED[word]}"


def _in_names(text: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            word = token.string
            if word in BANNED_NAMES:
                yield f"{token.start[0]}: the name {word}, use {BANNED_NAMES[word]}"
