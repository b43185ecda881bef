"""Exports of Argilla and Label Studio in their published shapes, with texts of our own."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from palate.core.errors import InvalidInputError
from research.command_line import program
from research.preferences.exports import Fields, label_studio_rows, main
from research.preferences.verdicts import Verdict, read_verdicts

PROMPT = "Why is the sky blue?"
ANSWERS = {"a": "Because air scatters blue light most.", "b": "It is.", "c": "Nobody knows."}


def written(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def run(kind: str, path: Path, answers: str, *, prompt: str = "question") -> dict[str, Any]:
    out = path.with_name("verdicts.jsonl")
    arguments = [kind, str(path), "--prompt", prompt, "--answers", answers, "--out", str(out)]
    result = CliRunner().invoke(program(main), [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def verdicts(kind: str, path: Path, answers: str) -> list[tuple[str, str, str, float]]:
    """User, names of the first and the second answer, and the label."""
    names = {text: name for name, text in ANSWERS.items()}
    found: list[Verdict] = read_verdicts(Path(run(kind, path, answers)["out"]))
    assert {one.prompt for one in found} == {PROMPT}
    return [(one.user, names[one.first], names[one.second], one.label) for one in found]


def argilla(**responses: Any) -> dict[str, Any]:
    return {
        "id": "0a6",
        "fields": {"question": PROMPT, "one": ANSWERS["a"], "two": ANSWERS["b"]},
        "metadata": {},
        "suggestions": {"best": {"value": "two", "score": None, "agent": None}},
        "responses": responses,
        "vectors": {},
        "status": "completed",
    }


def test_labels_ties_and_ratings_of_argilla_become_verdicts(tmp_path: Path) -> None:
    records = [
        argilla(
            best=[{"value": "two", "user_id": "u1"}, {"value": "one", "user_id": "u2"}],
            why=[{"value": "It is shorter.", "user_id": "u1"}],
        ),
        argilla(best=[{"value": "Tie", "user_id": "u3"}]),
        argilla(
            one=[{"value": 2, "user_id": "u4"}],
            two=[{"value": 5, "user_id": "u4"}],
            clear=[{"value": 4, "user_id": "u4"}],
        ),
    ]
    path = written(tmp_path / "records.json", records)
    assert verdicts("argilla", path, "one,two") == [
        ("u1", "b", "a", 1.0),
        ("u2", "a", "b", 1.0),
        ("u3", "a", "b", 0.5),
        ("u4", "b", "a", 1.0),
    ]


@pytest.mark.parametrize(
    "ranking",
    [
        [{"value": "B", "rank": 1}, {"value": "A", "rank": 2}, {"value": "C", "rank": 2}],
        {"value": ["A", "B", "C"], "rank": [2, 1, 2]},
    ],
)
def test_rankings_with_ties_are_read_in_both_of_argillas_shapes(
    tmp_path: Path, ranking: Any
) -> None:
    record = {
        "question": PROMPT,
        "one": ANSWERS["a"],
        "two": ANSWERS["b"],
        "three": ANSWERS["c"],
        "order": [
            {"user_id": "u1", "value": ranking, "status": "submitted"},
            {"user_id": "u2", "value": ranking, "status": "discarded"},
        ],
        "order-suggestion": None,
    }
    path = written(tmp_path / "records.json", [record])
    assert verdicts("argilla", path, "one=A,two=B,three=C") == [
        ("u1", "b", "a", 1.0),
        ("u1", "b", "c", 1.0),
        ("u1", "a", "c", 0.5),
    ]


def test_responses_by_user_of_argillas_first_version_are_read(tmp_path: Path) -> None:
    values = {"best": {"value": "two"}, "why": {"value": "It is shorter."}}
    record = argilla() | {
        "responses": [
            {"user_id": "u1", "values": values, "status": "submitted"},
            {"user_id": "u2", "values": values, "status": "draft"},
            {"user_id": "u3", "values": None, "status": "submitted"},
        ]
    }
    path = written(tmp_path / "records.json", [record])
    assert verdicts("argilla", path, "one,two") == [("u1", "b", "a", 1.0)]


def test_a_flat_table_of_argilla_is_read_from_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="parquet needs the datasets extra")
    parquet = pytest.importorskip("pyarrow.parquet")
    row = {
        "id": "0a6",
        "question": PROMPT,
        "one": ANSWERS["a"],
        "two": ANSWERS["b"],
        "order.responses": [["two", "one"], ["one", "two"], ["one", "two"]],
        "order.responses.users": ["u1", "u2", "u3"],
        "order.responses.status": ["submitted", "draft", "submitted"],
    }
    path = tmp_path / "records.parquet"
    parquet.write_table(arrow.Table.from_pylist([row]), path)
    assert verdicts("argilla", path, "one,two") == [("u1", "b", "a", 1.0), ("u3", "a", "b", 1.0)]


def task(*results: dict[str, Any], by: Any = 7, **more: Any) -> dict[str, Any]:
    data = {"question": PROMPT, "left_text": ANSWERS["a"], "right_text": ANSWERS["b"]}
    annotation = {"id": 1, "completed_by": by, "was_cancelled": False, "result": list(results)}
    return {"id": 1, "data": data, "annotations": [{**annotation, **more}], "predictions": []}


def tagged(kind: str, value: Any, tag: str = "txt-1,txt-2") -> dict[str, Any]:
    held = {"selected" if kind == "pairwise" else kind: value}
    return {"id": "x1", "type": kind, "from_name": "pw", "to_name": tag, "value": held}


def test_pairs_choices_and_ratings_of_label_studio_become_verdicts(tmp_path: Path) -> None:
    ana = {"id": 3, "email": "ana@example.org"}
    tasks = [
        task(tagged("pairwise", "right"), tagged("textarea", ["Shorter."])),
        task(tagged("choices", ["tie"]), by=ana),
        task(tagged("rating", 2, "txt-1"), tagged("rating", 4, "txt-2"), by=9),
        task(tagged("pairwise", "left"), was_cancelled=True),
    ]
    path = written(tmp_path / "export.json", tasks)
    assert verdicts("label-studio", path, "left_text=txt-1,right_text=txt-2") == [
        ("7", "b", "a", 1.0),
        ("ana@example.org", "a", "b", 0.5),
        ("9", "b", "a", 1.0),
    ]


def test_a_list_of_answers_that_was_ranked_is_read(tmp_path: Path) -> None:
    one = task(tagged("ranker", ["m2", "m1", "m3"], "results"))
    names = {"m1": "a", "m2": "b", "m3": "c"}
    one["data"]["items"] = [
        {"id": name, "title": name, "body": ANSWERS[own]} for name, own in names.items()
    ]
    buckets = task(tagged("ranker", {"best": ["m1"], "ads": ["m2"]}, "results"))
    buckets["data"]["items"] = one["data"]["items"]
    path = written(tmp_path / "export.json", [one, buckets])
    assert verdicts("label-studio", path, "items") == [
        ("7", "b", "a", 1.0),
        ("7", "b", "c", 1.0),
        ("7", "a", "c", 1.0),
    ]


def test_responses_of_nobody_and_equal_answers_are_left_out_and_counted(tmp_path: Path) -> None:
    same = argilla(best=[{"value": "one", "user_id": "u1"}])
    same["fields"]["two"] = same["fields"]["one"]
    good = argilla(best=[{"value": "one", "user_id": "u1"}, {"value": "one", "user_id": None}])
    counts = run("argilla", written(tmp_path / "records.json", [same, good]), "one,two")
    assert (counts["n_rows"], counts["n_users"], counts["n_left_out"]) == (1, 1, 2)


@pytest.mark.parametrize(
    ("content", "answers", "sentence"),
    [
        ([argilla(best=[])], "one,two", "No response"),
        ([argilla(best=[{"value": "A", "user_id": "u"}])], "one,two", "FIELD=NAME"),
        ([argilla()], "one,three", "no 'three'"),
        ([argilla()], "one", "no list"),
        ([argilla()], "one=A,two=A", "names of their own"),
        ({"records": []}, "one,two", "no JSON list"),
    ],
)
def test_what_is_no_export_is_refused_in_a_sentence(
    tmp_path: Path, content: Any, answers: str, sentence: str
) -> None:
    path = written(tmp_path / "records.json", content)
    with pytest.raises(InvalidInputError, match=sentence):
        run("argilla", path, answers)


def test_the_small_export_of_label_studio_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "export.json", [{"question": PROMPT, "pw": "left"}])
    with pytest.raises(InvalidInputError, match="JSON_MIN"):
        list(label_studio_rows(path, Fields.parse("question", "one,two")))
