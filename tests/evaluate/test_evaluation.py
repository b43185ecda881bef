"""A whole evaluation of a tiny library, a judge over HTTP; resuming; several processes."""

import json
import sys

import numpy as np
import pytest
import yaml

from judge_server import serving
from palate.core.decision import Known
from palate.core.errors import FormatError, InvalidInputError, PalateError
from palate.core.settings import load_settings
from palate.engine.local import LocalEngine
from palate.evaluate.evaluation import evaluate
from palate.evaluate.judges import Candidate, FunctionJudge
from palate.evaluate.rows import open_results
from palate.evaluate.suite import JudgeSettings, Suite
from palate.library.library import Library

METHODS = [
    "base",
    "prompt",
    "soup",
    "auto",
    "output-soup",
    "implicit-soup",
    "rewarded-soup",
    "mod",
    "mixture-even",
]


PROMPTS = tuple(f"prompt {k}" for k in range(3))


def suite_for(folder, *, url, methods=METHODS):
    rows = [{"prompt": prompt} for prompt in PROMPTS]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = {
        "prompts": str(folder / "prompts.jsonl"),
        "users": [
            {"name": "Ana", "preference": {"kind": 0.5, "plain": 0.5}, "instruction": "Be kind."},
            {"name": "Bo", "preference": {"short": 1.0}, "instruction": "Be short."},
        ],
        "methods": list(methods),
        "seeds": [0],
        "judge": {"kind": "llm", "url": url, "model": "short-judge"},
        "max_tokens": 8,
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(content))
    return load_settings(Suite, folder / "suite.yaml")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_library):
    folder = tmp_path_factory.mktemp("evaluate")
    with serving() as server:
        suite = suite_for(folder, url=server.url)
        return evaluate(tiny_library, suite, out=folder / "out"), folder, suite


def test_every_method_user_and_prompt_has_one_row(whole):
    found, folder, _ = whole
    rows = [json.loads(line) for line in (folder / "out/results.jsonl").read_text().splitlines()]
    answers = [row for row in rows if row["kind"] == "answer"]
    keys = {(r["method"], r["user"], r["prompt"], r["seed"], r["copy"]) for r in answers}
    assert len(keys) == len(answers) == len(METHODS) * 2 * 3
    for row in answers:
        assert row["judge"] == "llm:short-judge"
        assert "library" in row["versions"]
        assert set(row["rewards"]) == {"kind", "short", "plain"}
    assert found.evaluation.report.cells.n_left_out == 0
    for name in ("report.html", "report.md", "report.json", "suite.json"):
        assert (folder / "out" / name).is_file()


def test_the_judge_compares_with_the_base_so_the_base_is_at_one_half(whole):
    found, _, _ = whole
    assert found.evaluation.report.score("base").utility.estimate == 0.5


def test_every_row_is_what_the_library_decides(whole, tiny_library):
    found, _, suite = whole
    library = Library.load(tiny_library)
    users = {user.name: user for user in suite.users}
    for row in found.results.answers:
        if row.method in library.methods:
            user = users[row.user]
            known = Known(preference=user.preference, instruction=user.instruction)
            decision = library.decide(row.prompt, known, method=row.method)
            assert row.taken == decision.method
            assert row.coefficients == pytest.approx(dict(decision.coefficients))
            assert (row.n_passes, row.n_candidates) == (decision.n_passes, 1)
            assert row.reason == decision.reason


def test_coefficients_and_passes_by_hand(whole):
    found, _, _ = whole
    rows = {(row.method, row.user): row for row in found.results.answers}
    own = {name: c for name, c in rows["soup", "Ana"].coefficients.items() if c}
    assert own == pytest.approx({"kind": 0.5, "plain": 0.5})  # the library measured no strength
    assert rows["soup", "Ana"].n_passes == 1
    assert rows["output-soup", "Ana"].n_passes == 2  # of sum one, so the reference drops out
    assert rows["mod", "Ana"].n_passes == 2
    assert rows["mod", "Bo"].n_passes == 1
    assert rows["mixture-even", "Ana"].n_passes == 2
    assert rows["base", "Bo"].coefficients == {}
    assert rows["auto", "Ana"].taken == "prompted-soup"  # its methods were not measured


def test_every_method_has_the_same_draws(whole):
    found, _, _ = whole
    texts = {(row.method, row.user, row.prompt): row.text for row in found.results.answers}
    for prompt in {row.prompt for row in found.results.answers}:
        # at strength one and one objective these four are the expert itself
        same = {texts[m, "Bo", prompt] for m in ("soup", "output-soup", "rewarded-soup", "mod")}
        assert len(same) == 1
    # but draws are each user's own: users alike would otherwise be one draw repeated
    base = {user: [texts["base", user, p] for p in PROMPTS] for user in ("Ana", "Bo")}
    assert base["Ana"] != base["Bo"]


def test_log_ratios_are_zero_for_the_base_and_mostly_not_for_soups(whole):
    found, _, _ = whole
    by_method = {m: [r.log_ratio for r in found.results.answers if r.method == m] for m in METHODS}
    np.testing.assert_allclose(by_method["base"], 0.0, atol=1e-4)
    assert np.abs(by_method["soup"]).max() > 0.01


@pytest.fixture
def n_generated(monkeypatch):
    """How many answers the engine was asked for."""
    counted = [0]
    plain = LocalEngine.generate

    def generate(self, requests):
        counted[0] += len(requests)
        return plain(self, requests)

    monkeypatch.setattr(LocalEngine, "generate", generate)
    return counted


def test_an_interrupted_evaluation_goes_on_without_making_anything_twice(
    tmp_path, tiny_library, n_generated
):
    methods = ["base", "soup"]
    with serving() as server:
        suite = suite_for(tmp_path, url=server.url, methods=methods)
        evaluate(tiny_library, suite, out=tmp_path / "whole")
        n_whole = n_generated[0]
        results = tmp_path / "whole/results.jsonl"
        lines = results.read_text().splitlines(keepends=True)
        torn = tmp_path / "torn"
        torn.mkdir()
        (torn / "results.jsonl").write_text("".join(lines[:4]) + lines[4][:30])
        n_generated[0] = 0
        server.questions.clear()
        found = evaluate(tiny_library, suite, out=torn)
        assert 0 < n_generated[0] < n_whole
        assert "cut off" in found.results.notes[0]
        n_generated[0] = 0
        server.questions.clear()
        again = evaluate(tiny_library, suite, out=torn)
    assert n_generated[0] == 0
    assert server.questions == []
    assert again.results.notes == []

    def answers(path):
        return sorted((row.key, row.text, row.utility) for row in open_results(path).answers)

    assert answers(torn / "results.jsonl") == answers(results)


@pytest.mark.slow
def test_two_processes_make_the_rows_that_one_makes(tmp_path, tiny_library, whole):
    one, _, _ = whole
    with serving() as server:
        suite = suite_for(tmp_path, url=server.url)
        two = evaluate(tiny_library, suite, out=tmp_path / "out", n_workers=2)
    timed = ("tokens_per_second", "slower_than_base")

    def content(found):
        answers = {(row.key, row.text, row.utility, row.answer) for row in found.results.answers}
        facts = {(f.key, f.value) for f in found.results.facts if f.name not in timed}
        return answers, facts

    assert content(two) == content(one)
    lines = (tmp_path / "out/results.jsonl").read_text().splitlines()
    assert len(lines) == len(two.results.rows) == len(one.results.rows)
    own = two.evaluation.report.to_json()
    other = one.evaluation.report.to_json()
    assert own["matrix"] == other["matrix"]


@pytest.mark.slow
def test_what_fails_in_a_process_is_one_sentence(tmp_path, tiny_library):
    with serving() as server:
        methods = ["base", "soup", "best-expert"]
        suite = suite_for(tmp_path, url=server.url, methods=methods)
        with pytest.raises(InvalidInputError, match="leave out the method 'best-expert'") as caught:
            evaluate(tiny_library, suite, out=tmp_path / "out", n_workers=2)
    assert str(caught.value).endswith(".")


def test_more_methods_can_be_added_and_another_suite_is_refused(
    tmp_path, tiny_library, n_generated
):
    with serving() as server:
        small = suite_for(tmp_path, url=server.url, methods=["base"])
        evaluate(tiny_library, small, out=tmp_path / "out")
        n_generated[0] = 0
        larger = small.model_copy(update={"methods": ("base", "rewarded-soup")})
        found = evaluate(tiny_library, larger, out=tmp_path / "out")
        assert {row.method for row in found.results.answers} == {"base", "rewarded-soup"}
        other = larger.model_copy(update={"max_tokens": 7})
        with pytest.raises(InvalidInputError, match="another 'max_tokens'"):
            evaluate(tiny_library, other, out=tmp_path / "out")


def test_results_of_an_earlier_version_are_refused_before_anything_is_answered(
    tmp_path, tiny_library, n_generated
):
    out = tmp_path / "out"
    out.mkdir()
    (out / "results.jsonl").write_text(json.dumps({"kind": "answer", "way": "base"}) + "\n")
    with serving() as server:
        suite = suite_for(tmp_path, url=server.url, methods=["base"])
        with pytest.raises(FormatError, match="version 1"):
            evaluate(tiny_library, suite, out=out)
    assert n_generated[0] == 0


@pytest.mark.parametrize(
    "method",
    ["bespoke", "mixture", "portfolio", "best-expert", "soup@5", "soup+best-of-2"],
)
def test_what_the_library_lacks_is_one_sentence(tmp_path, tiny_library, method):
    with serving() as server:
        suite = suite_for(tmp_path, url=server.url, methods=["base", method])
        with pytest.raises(PalateError) as caught:
            evaluate(tiny_library, suite, out=tmp_path / "out")
    assert str(caught.value).endswith(".")


def test_by_default_every_method_is_measured_that_the_library_can_serve(tmp_path, tiny_library):
    with serving() as server:
        suite = suite_for(tmp_path, url=server.url, methods=[])
        found = evaluate(tiny_library, suite, out=tmp_path / "out")
    methods = [score.method for score in found.evaluation.report.scores]
    assert methods[0] == "base"
    assert {"auto", "prompt", "soup", "prompted-soup", "output-soup"} <= set(methods)
    assert not {"portfolio", "mixture", "best-of-n"} & set(methods)  # the library lacks their parts


def lengths(prompts, completions):
    rewards = [[1.0 / (1 + len(text)), 0.5, 0.0] for text in completions]
    return rewards, [len(text) > 3 for text in completions]


def test_a_judge_may_be_a_function(tmp_path, tiny_soup_library, monkeypatch):
    monkeypatch.setitem(sys.modules, "my_judge", sys.modules[__name__])
    suite = suite_for(tmp_path, url="none", methods=["base", "soup@3"])
    judge = JudgeSettings(kind="function", function="my_judge:lengths")
    found = evaluate(
        tiny_soup_library, suite.model_copy(update={"judge": judge}), out=tmp_path / "out"
    )
    for row in found.results.answers:
        assert row.rewards == {"kind": 1.0 / (1 + len(row.text)), "short": 0.5, "plain": 0.0}
        assert row.is_well_formed == (len(row.text) > 3)
        assert row.judge == "function:my_judge:lengths"
    judge = FunctionJudge(lambda prompts, completions: [[2.0, 0.0, 0.0]], 3)
    with pytest.raises(InvalidInputError, match=r"shape \(1, 3\) for 1 answers"):
        judge.judge([Candidate("p", "text", "other")])
