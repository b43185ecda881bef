"""Verdicts given in Argilla or Label Studio as rows that `research.preferences.verdicts` reads.

    python -m research.preferences.exports argilla records.json --prompt instruction
        --answers response_a,response_b --out verdicts.jsonl
    python -m research.preferences.exports label-studio export.json --prompt prompt
        --answers left_text=left,right_text=right --out verdicts.jsonl

`--answers` names the fields that hold the answers, each with `=NAME` where verdicts call it by
another name; or one field that holds a list of them, strings or `{id, body | text | title}`.

    Argilla 2: `records.to_json`, a list of `{fields: {FIELD: text}, responses: {QUESTION: [{value,
    user_id}]}}`; or `to_datasets` as parquet, with the columns FIELD, `QUESTION.responses`,
    `.responses.users`, `.responses.status`. Argilla 1: a column QUESTION of `[{user_id, value,
    status}]`, or `responses: [{user_id, values: {QUESTION: {value}}, status}]`. Discarded and draft
    responses are left out.

    Label Studio: the JSON export, a list of `{data: {FIELD: text}, annotations: [{completed_by,
    was_cancelled, result: [{type, from_name, to_name, value}]}]}` with results of the types
    `pairwise` (`selected: left | right`, the first and the second answer), `choices`, `rating` and
    `ranker` (a list; buckets have no order and are left out).

What a response may say:

    a name                      that answer is preferred to each other one
    tie, equal, both, neither   a tie of all
    a ranking                   a list of names, the best first, or of `{value, rank}`, or `{value:
                                names, rank: ranks}`; equal ranks are ties
    a number                    a rating, where the question (Argilla) or the tag (Label Studio,
                                `to_name` or `from_name`) has the name of an answer

Other responses, such as comments, say nothing of the answers and are passed over.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from palate.core.errors import InvalidInputError
from palate.core.files import is_finite_number, read_json, write_jsonl
from palate.rewards.rows import read_rows
from research.command_line import IsJson, print_result, run
from research.preferences.published import Row, usable

Name = Literal["argilla", "label-studio"]
TIES = {"tie", "equal", "both", "neither"}
UNFINISHED = {"discarded", "draft"}
TEXTS = ("body", "text", "content", "title")  # of an answer in a list, the first that is there
SIDES = ("left", "right")


@dataclass(frozen=True)
class Fields:
    """Where a record holds the prompt and the answers."""

    prompt: str
    answers: Mapping[str, str]  # field to the name by which verdicts call it

    @classmethod
    def parse(cls, prompt: str, answers: str) -> "Fields":
        """From `FIELD,FIELD` or `FIELD=NAME,FIELD=NAME`.

        Raises:
            InvalidInputError: a field or name is empty, or two have one name.
        """
        pairs = [(part.partition("=")[0], part.partition("=")[2]) for part in answers.split(",")]
        named = {field.strip(): (name or field).strip() for field, name in pairs}
        if not all([*named, *named.values()]) or len(set(named.values())) < len(pairs):
            raise InvalidInputError(
                f"The answers {answers!r} are not FIELD,FIELD or FIELD=NAME,FIELD=NAME with names "
                "of their own."
            )
        return cls(prompt, named)

    def read(self, record: Mapping[str, Any], place: str) -> tuple[Any, dict[str, Any]]:
        """The prompt, and the answers by name.

        Raises:
            InvalidInputError: the record lacks one of the fields.
        """
        missing = [name for name in (self.prompt, *self.answers) if record.get(name) is None]
        if missing:
            raise InvalidInputError(
                f"{place} has no {missing[0]!r}; its fields are "
                f"{', '.join(map(repr, record)) or 'none'}; see --prompt and --answers."
            )
        if len(self.answers) > 1:
            return record[self.prompt], {n: record[field] for field, n in self.answers.items()}
        items = record[next(iter(self.answers))]
        if not isinstance(items, list) or not items:
            raise InvalidInputError(
                f"{place} has one field of answers, which is no list of them; name another field "
                "in --answers."
            )
        return record[self.prompt], dict(_item(item, n) for n, item in enumerate(items))


def argilla_rows(path: Path, fields: Fields) -> Iterator[Row]:
    """Verdicts of an Argilla export, JSON, JSONL or parquet.

    Raises:
        InvalidInputError: the file is missing or unreadable, or a record lacks a field.
    """
    if path.suffix == ".json":
        records = _list(read_json(path, what="Argilla export"), path)
        places = [f"Record {n} of {str(path)!r}" for n in range(1, len(records) + 1)]
    else:
        records, places = read_rows(path, what="Argilla export")
    for record, place in zip(records, places, strict=True):
        held = record.get("fields")
        prompt, answers = fields.read(held if isinstance(held, Mapping) else record, place)
        for question, user, value, status in _argilla_responses(record):
            if status not in UNFINISHED:
                own = {"user_id": _text(user), "prompt": prompt}
                yield from _verdicts(own, answers, value, question)


def label_studio_rows(path: Path, fields: Fields) -> Iterator[Row]:
    """Verdicts of a Label Studio export in its JSON format.

    Raises:
        InvalidInputError: the file is missing or no JSON export, or a task lacks a field.
    """
    for number, task in enumerate(_list(read_json(path, what="Label Studio export"), path), 1):
        place = f"Task {number} of {str(path)!r}"
        data, annotations = task.get("data"), task.get("annotations")
        if not isinstance(data, Mapping) or not isinstance(annotations, list):
            message = f"{place} has no 'data' and 'annotations'; export it as JSON, not JSON_MIN."
            raise InvalidInputError(message)
        prompt, answers = fields.read(data, place)
        for annotation in _mappings(annotations):
            by = annotation.get("completed_by")
            user = by.get("email", by.get("id")) if isinstance(by, Mapping) else by
            own = {"user_id": _text(user), "prompt": prompt}
            for result in _mappings(annotation.get("result")):
                if annotation.get("was_cancelled"):
                    continue
                value, names = _label_studio_value(result, [*answers])
                for name in names:
                    yield from _verdicts(own, answers, value, name)


def _argilla_responses(record: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any, Any]]:
    """Question, user, value and status of every response, in any of the three shapes."""
    nested = record.get("responses")
    for question, own in (nested if isinstance(nested, Mapping) else record).items():
        if not isinstance(own, list):
            continue
        if question.endswith(".responses"):
            users, statuses = (
                _as_long(record.get(f"{question}.{part}"), len(own)) for part in ("users", "status")
            )
            for one in zip(users, own, statuses, strict=True):
                yield question.removesuffix(".responses"), *one
            continue
        for one in _mappings(own):
            values = one.get("values")
            named = values if isinstance(values, Mapping) else {question: one}
            for name, held in named.items():
                if "user_id" in one and isinstance(held, Mapping):
                    yield name, one["user_id"], held.get("value"), one.get("status")


def _label_studio_value(result: Mapping[str, Any], names: list[str]) -> tuple[Any, list[str]]:
    """What a result says, and the names of what it may be about."""
    kind, held = str(result.get("type")), result.get("value")
    value = held.get("selected" if kind == "pairwise" else kind) if isinstance(held, Mapping) else 0
    if kind == "pairwise" and value in SIDES and len(names) > 1:
        return names[SIDES.index(value)], [""]
    if kind == "choices" and isinstance(value, list) and len(value) == 1:
        return value[0], [""]
    if kind == "ranker" and isinstance(value, list):
        return value, [""]
    tags = [str(result.get(name)) for name in ("to_name", "from_name")]
    return value, [tag for tag in dict.fromkeys(tags) if kind == "rating" and tag in names]


def _verdicts(own: Row, answers: Mapping[str, Any], value: Any, question: str) -> Iterator[Row]:
    """The rows of one response: pairs, or a rating."""
    if is_finite_number(value) and question in answers:
        yield {**own, "completion": answers[question], "rating": value}
        return
    if isinstance(value, str) and value in answers:
        for other in answers:
            if other != value:
                yield {**own, "chosen": answers[value], "rejected": answers[other]}
        return
    ranks = _ranks(value, answers)
    for one, other in itertools.combinations(sorted(ranks, key=lambda name: ranks[name]), 2):
        row = {**own, "chosen": answers[one], "rejected": answers[other]}
        yield {**row, "is_tie": True} if ranks[one] == ranks[other] else row


def _ranks(value: Any, answers: Mapping[str, Any]) -> dict[str, float]:
    """By answer, its place from the best; empty where the value is no ranking and no tie."""
    if isinstance(value, str):
        return dict.fromkeys(answers, 0.0) if value.strip().lower() in TIES else {}
    if isinstance(value, Mapping):
        names, ranks = value.get("value"), value.get("rank")
        if not isinstance(names, list) or not isinstance(ranks, list) or len(names) != len(ranks):
            return {}
        value = [{"value": name, "rank": rank} for name, rank in zip(names, ranks, strict=True)]
    ranked: dict[str, float] = {}
    for place, one in enumerate(value if isinstance(value, list) else []):
        name, rank = (
            (one.get("value"), one.get("rank")) if isinstance(one, Mapping) else (one, place)
        )
        if str(name) in answers and rank is not None and is_finite_number(rank):
            ranked[str(name)] = float(rank)
    return ranked


def _item(item: Any, place: int) -> tuple[str, Any]:
    """Name and text of an answer in a list."""
    if not isinstance(item, Mapping):
        return str(place), item
    text = next((item[name] for name in TEXTS if isinstance(item.get(name), str)), None)
    return str(item.get("id", place)), text


def _list(content: Any, path: Path) -> list[Mapping[str, Any]]:
    if isinstance(content, list) and all(isinstance(one, Mapping) for one in content):
        return content
    raise InvalidInputError(f"The export {str(path)!r} is no JSON list of records; export it anew.")


def _as_long(content: Any, n: int) -> list[Any]:
    return content if isinstance(content, list) and len(content) == n else [None] * n


def _mappings(content: Any) -> list[Mapping[str, Any]]:
    own = content if isinstance(content, list) else []
    return [one for one in own if isinstance(one, Mapping)]


def _text(user: Any) -> str:
    return "" if user is None else str(user).strip()


def main(
    name: Annotated[Name, typer.Argument(help="What wrote the export.")],
    path: Annotated[Path, typer.Argument(help="The export.")],
    *,
    prompt: Annotated[str, typer.Option(help="Field of the prompt.")],
    answers: Annotated[str, typer.Option(help="Fields of the answers: FIELD,FIELD=NAME.")],
    out: Annotated[Path, typer.Option(help="JSONL file to write.")],
    is_json: IsJson = False,
) -> None:
    """Write an export of Argilla or Label Studio as verdicts of users."""
    readers: dict[str, Callable[[Path, Fields], Iterator[Row]]] = {
        "argilla": argilla_rows,
        "label-studio": label_studio_rows,
    }
    rows, n_left_out = usable(readers[name](path, Fields.parse(prompt, answers)))
    named = [row for row in rows if row["user_id"]]
    if not named:
        raise InvalidInputError(
            f"No response in {str(path)!r} of a named user speaks of the answers "
            f"{answers!r}; add the names by which responses call them, FIELD=NAME."
        )
    write_jsonl(out, named)
    n_users = len({row["user_id"] for row in named})
    n_left_out += len(rows) - len(named)
    result = {"out": str(out), "n_rows": len(named), "n_users": n_users, "n_left_out": n_left_out}
    print_result(result, is_json=is_json)


if __name__ == "__main__":
    run(main)
