"""The class that the lm-evaluation-harness takes, in the harness itself, on a task of our own."""

import json
import math

import pytest
import yaml

pytest.importorskip("lm_eval", reason="palate[harness] is not installed")

from benchmarks.harness.library import HarnessModel
from benchmarks.harness.model import HarnessJob, LibraryLM, run_harness
from palate.core.decision import Known
from palate.core.errors import InvalidInputError
from palate.library.library import Library

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # the harness's own
]
CHOICES = ("c", "d", "e")
QUESTIONS = ("a b", "d e f", "g", "h i a b")

KNOWN = Known(coefficients={"kind": 0.8, "short": -0.5, "plain": 0.6})


@pytest.fixture(scope="module")
def model(tiny_library):
    return HarnessModel(Library.load(tiny_library), KNOWN, "output-soup")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """One task for each thing that the harness asks: choices, whole texts, continuations."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{"question": text, "answer": CHOICES[k % 3]} for k, text in enumerate(QUESTIONS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
    }
    made = {
        "palate_choice": {
            "output_type": "multiple_choice",
            "doc_to_text": "{{question}}",
            "doc_to_target": "{{answer}}",
            "doc_to_choice": list(CHOICES),
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        },
        "palate_text": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{question}}",
            "metric_list": [{"metric": "byte_perplexity"}],
        },
        "palate_words": {
            "output_type": "generate_until",
            "doc_to_text": "{{question}}",
            "doc_to_target": "{{answer}}",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4, "do_sample": False},
            "metric_list": [
                {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
            ],
        },
    }
    for name, task in made.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **common, **task}))
    return folder


def test_the_harness_runs_its_three_kinds_of_tasks_and_counts_as_we_count(model, tasks):
    names = ("palate_choice", "palate_text", "palate_words")
    found = run_harness(model, HarnessJob(names, include=tasks))["results"]
    right = 0
    for place, question in enumerate(QUESTIONS):
        values = [model.log_likelihood(question, f" {word}")[0] for word in CHOICES]
        right += values.index(max(values)) == place % 3
    assert found["palate_choice"]["acc,none"] == pytest.approx(right / len(QUESTIONS))
    total = sum(model.rolling(text) for text in QUESTIONS)
    n_bytes = sum(len(text.encode()) for text in QUESTIONS)
    assert found["palate_text"]["byte_perplexity,none"] == pytest.approx(math.exp(-total / n_bytes))
    words = model.generate([(text, {"until": ["\n"], "max_gen_toks": 4}) for text in QUESTIONS])
    exact = sum(word == CHOICES[k % 3] for k, word in enumerate(words)) / len(QUESTIONS)
    assert found["palate_words"]["exact_match,none"] == pytest.approx(exact)


def test_a_limit_is_kept_and_an_unknown_task_is_named(model, tasks):
    found = run_harness(model, HarnessJob(("palate_choice",), include=tasks, limit=2))
    assert found["n_samples"]["palate_choice"]["effective"] == 2
    with pytest.raises(InvalidInputError, match="'palate_nothing'"):
        run_harness(model, HarnessJob(("palate_nothing",), include=tasks))


def test_messages_are_put_together_as_palate_does(model):
    lm = LibraryLM(model)
    messages = [{"role": "user", "content": "a b"}]
    assert lm.apply_chat_template(messages) == "a b"  # the tiny base has no template
    with pytest.raises(InvalidInputError, match="not continued"):
        lm.apply_chat_template(messages, add_generation_prompt=False)
    assert lm.chat_template(chat_template=True) == ""
    assert len(lm.tokenizer_name) > 10
