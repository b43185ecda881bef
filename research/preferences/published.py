"""Published data sets of users as rows that `research.preferences.verdicts` reads.

    python -m research.preferences.published prism FOLDER --out prism.jsonl
    python -m research.preferences.published personalllm FILE --out personalllm.jsonl --users 100
    python -m research.preferences.published prefeval FOLDER --out prefeval.jsonl

Nothing is downloaded; the files are as their authors publish them, and other columns are ignored:

    PRISM (HannahRoseKirk/prism-alignment, arXiv 2404.16019): `conversations.jsonl`, one
    conversation a line: `user_id`, `conversation_history` of `{turn, role: user | model, content,
    score: 1 to 100, if_chosen}`. Each model answer is a row with its rating; the prompt is the
    conversation before it along the chosen answers. Beside it `survey.jsonl`, where it is there:
    `user_id`, `system_string`, `self_description`, which become the user's `instruction`.

    PersonalLLM (namkoong-lab/PersonalLLM, arXiv 2409.20296): parquet or JSONL with `prompt`,
    `response_1` to `response_8`, and a score `response_1_REWARDMODEL` of each reward model. Users
    are drawn as in the paper: Dirichlet weights over the standardised scores; each compares two
    answers to a prompt. Or its interaction database, with `person_id` and `prompt_1`,
    `response_1_a`, `response_1_b`, `chosen_1` (`a` or `b`), and so on, which is taken as it is.

    PrefEval (amazon-science/PrefEval, arXiv 2502.09597): the folder `benchmark_dataset`, with
    `mcq_options/TOPIC.json`, lists of `{preference, question, classification_task_options}`, whose
    first option is the one that follows the preference. Each preference is one user's, and an
    `instruction`; the first option is preferred to each of the others.

Rows whose text cannot be a prompt or an answer are left out and counted.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from palate.core.errors import InvalidInputError
from palate.core.files import is_finite_number, numbered_jsonl, read_json, write_jsonl
from palate.core.seeds import generator_for
from palate.rewards.rows import read_rows, texts_of
from research.command_line import IsJson, Seed, print_result, run

Row = dict[str, Any]
Name = Literal["prism", "personalllm", "prefeval"]
CONCENTRATION = 0.05  # of the Dirichlet users of PersonalLLM: few reward models each
PROMPTS_A_USER = 40
RESPONSES = range(1, 9)


def prism_rows(folder: Path) -> Iterator[Row]:
    """One row for each rated answer of PRISM.

    Raises:
        InvalidInputError: `conversations.jsonl` is missing, or a line lacks a field.
    """
    said = _instructions(folder / "survey.jsonl")
    path = folder / "conversations.jsonl"
    for number, line in numbered_jsonl(path, what="conversations").items():
        place = f"Line {number} of the conversations {str(path)!r}"
        user = _field(line, "user_id", str, place)
        history = _field(line, "conversation_history", list, place)
        messages: list[dict[str, str]] = []
        for turn in sorted({_field(one, "turn", int, place) for one in history}):
            own = [one for one in history if one["turn"] == turn]
            answers = [one for one in own if one.get("role") == "model"]
            messages += [_message("user", one) for one in own if one.get("role") == "user"]
            for one in answers:
                if is_finite_number(one.get("score")):
                    yield {
                        "user_id": user,
                        "prompt": list(messages),
                        "completion": _field(one, "content", str, place),
                        "rating": one["score"],
                        **said.get(user, {}),
                    }
            chosen = [one for one in answers if one.get("if_chosen")]
            if not chosen:
                break  # what the conversation went on with is not known
            messages.append(_message("assistant", chosen[0]))


def personalllm_rows(path: Path, *, n_users: int, seed: int) -> Iterator[Row]:
    """Comparisons of PersonalLLM, of drawn users or of its interaction database.

    Raises:
        InvalidInputError: the file is missing or unreadable, or lacks a column.
    """
    rows, places = read_rows(path, what="PersonalLLM file")
    if not rows:
        raise InvalidInputError(f"The PersonalLLM file {str(path)!r} is empty.")
    if "prompt_1" in rows[0]:
        for row, place in zip(rows, places, strict=True):
            yield from _interactions(row, place)
        return
    models = sorted(
        name.removeprefix("response_1_")
        for name, value in rows[0].items()
        if name.startswith("response_1_") and is_finite_number(value)
    )
    if not models:
        raise InvalidInputError(
            f"The PersonalLLM file {str(path)!r} has no scores such as 'response_1_gemma_2b'."
        )
    scores = np.array(  # [prompts, responses, models]
        [
            [[_score(row, f"response_{k}_{m}", place) for m in models] for k in RESPONSES]
            for row, place in zip(rows, places, strict=True)
        ]
    )
    scores = (scores - scores.mean(axis=(0, 1))) / np.maximum(scores.std(axis=(0, 1)), 1e-9)
    generator = generator_for(seed, "PersonalLLM users")
    for user in range(n_users):
        weights = generator.dirichlet([CONCENTRATION] * len(models))
        for prompt in generator.permutation(len(rows))[:PROMPTS_A_USER]:
            pair = generator.choice(len(RESPONSES), size=2, replace=False)
            worth = scores[prompt, pair] @ weights
            best, other = pair if worth[0] >= worth[1] else pair[::-1]
            yield {
                "user_id": f"person-{user}",
                "prompt": _field(rows[prompt], "prompt", str, places[prompt]),
                "chosen": _field(rows[prompt], f"response_{best + 1}", str, places[prompt]),
                "rejected": _field(rows[prompt], f"response_{other + 1}", str, places[prompt]),
            }


def prefeval_rows(folder: Path) -> Iterator[Row]:
    """Comparisons of PrefEval's options, each with the preference as `instruction`.

    Raises:
        InvalidInputError: there is no `mcq_options`, or an entry lacks a field.
    """
    paths = sorted((folder / "mcq_options").glob("*.json"))
    if not paths:
        raise InvalidInputError(
            f"The folder {str(folder)!r} has no mcq_options/TOPIC.json; give PrefEval's "
            "benchmark_dataset."
        )
    for path in paths:
        for number, entry in enumerate(read_json(path, what="PrefEval topic")):
            place = f"Entry {number} of {str(path)!r}"
            options = _field(entry, "classification_task_options", list, place)
            for other in options[1:]:
                yield {
                    "user_id": f"{path.stem}/{number}",
                    "instruction": _field(entry, "preference", str, place).strip(' "'),
                    "prompt": _field(entry, "question", str, place).strip(' "'),
                    "chosen": options[0],
                    "rejected": other,
                }


def usable(rows: Iterator[Row]) -> tuple[list[Row], int]:
    """The rows that verdicts can be read from, and how many were left out."""
    kept: list[Row] = []
    n_left_out = 0
    for row in rows:
        names = ("completion",) if "completion" in row else ("chosen", "rejected")
        try:
            texts = texts_of(row, *names, place="A row")
        except InvalidInputError:
            texts = []
        if all(text.strip() for text in texts) and len(set(texts[1:])) == len(names):
            kept.append(row)
        else:
            n_left_out += 1
    return kept, n_left_out


def _instructions(path: Path) -> dict[str, Row]:
    """By user, what the survey says of the wanted answers; nothing where there is no survey."""
    if not path.is_file():
        return {}
    said: dict[str, Row] = {}
    for line in numbered_jsonl(path, what="survey").values():
        texts = [line.get(name) for name in ("system_string", "self_description")]
        words = " ".join(text.strip() for text in texts if isinstance(text, str) and text.strip())
        if words:
            said[str(line.get("user_id"))] = {"instruction": words}
    return said


def _interactions(row: Row, place: str) -> Iterator[Row]:
    number = 1
    while isinstance(row.get(f"prompt_{number}"), str):
        best = _field(row, f"chosen_{number}", str, place)
        if best not in {"a", "b"}:
            raise InvalidInputError(f"{place} has 'chosen_{number}' {best!r}; it is 'a' or 'b'.")
        sides = (best, "b" if best == "a" else "a")
        chosen, rejected = (_field(row, f"response_{number}_{side}", str, place) for side in sides)
        yield {
            "user_id": f"person-{row.get('person_id')}",
            "prompt": row[f"prompt_{number}"],
            "chosen": chosen,
            "rejected": rejected,
        }
        number += 1


def _field(row: Any, name: str, kind: type, place: str) -> Any:
    value = row.get(name) if isinstance(row, Mapping) else None
    if not isinstance(value, kind):
        message = f"{place} has no {name!r} of type {kind.__name__}; is it as published?"
        raise InvalidInputError(message)
    return value


def _score(row: Row, name: str, place: str) -> float:
    if not is_finite_number(row.get(name)):
        message = f"{place} has the {name!r} {row.get(name)!r}; give a finite number."
        raise InvalidInputError(message)
    return float(row[name])


def _message(role: str, turn: Mapping[str, Any]) -> dict[str, str]:
    return {"role": role, "content": str(turn.get("content") or "")}


def main(
    name: Annotated[Name, typer.Argument(help="Which data set.")],
    path: Annotated[Path, typer.Argument(help="Its folder, or PersonalLLM's file.")],
    *,
    out: Annotated[Path, typer.Option(help="JSONL file to write.")],
    users: Annotated[int, typer.Option(min=1, help="That are drawn for PersonalLLM.")] = 100,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """Write a published data set as verdicts of users."""
    readers: dict[str, Callable[[], Iterator[Row]]] = {
        "prism": lambda: prism_rows(path),
        "personalllm": lambda: personalllm_rows(path, n_users=users, seed=seed),
        "prefeval": lambda: prefeval_rows(path),
    }
    rows, n_left_out = usable(readers[name]())
    write_jsonl(out, rows)
    n_users = len({row["user_id"] for row in rows})
    result = {"out": str(out), "n_rows": len(rows), "n_users": n_users, "n_left_out": n_left_out}
    print_result(result, is_json=is_json)


if __name__ == "__main__":
    run(main)
