"""A whole evaluation of a tiny library, a judge over HTTP; resuming; the world in small."""

import json

import numpy as np
import pytest
import yaml

from judge_server import serving
from palate.core.errors import InvalidInputError
from palate.core.settings import load_settings
from palate.evaluate.rows import open_results
from palate.evaluate.suite import Suite
from palate.models.engine import LocalEngine
from palate.recipes.evaluate import evaluate

WAYS = ["base", "prompting", "soup", "output-soup", "implicit-soup", "rewarded-soup", "mod"]


def suite_for(folder, library, *, url, ways=WAYS):
    for name in ("prompts", "development"):
        rows = [{"prompt": f"{name} {k}"} for k in range(3)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = {
        "library": str(library),
        "prompts": str(folder / "prompts.jsonl"),
        "development": str(folder / "development.jsonl"),
        "people": [
            {"name": "Ana", "preference": {"kind": 0.5, "plain": 0.5}, "instruction": "Be kind."},
            {"name": "Bo", "preference": {"short": 1.0}, "instruction": "Be short."},
        ],
        "ways": list(ways),
        "seeds": [0],
        "judge": {"kind": "llm", "url": url, "model": "short-judge"},
        "max_tokens": 8,
        "strength": 1.5,
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(content))
    return load_settings(Suite, folder / "suite.yaml")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_library):
    folder = tmp_path_factory.mktemp("evaluate")
    with serving() as server:
        suite = suite_for(folder, tiny_library, url=server.url)
        return evaluate(suite, out=folder / "out"), folder, suite


def test_every_way_person_and_prompt_has_one_row(whole):
    found, folder, _ = whole
    rows = [json.loads(line) for line in (folder / "out/results.jsonl").read_text().splitlines()]
    answers = [row for row in rows if row["kind"] == "answer"]
    keys = {(r["way"], r["person"], r["prompt"], r["seed"], r["copy"]) for r in answers}
    assert len(keys) == len(answers) == len(WAYS) * 2 * 3
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


def test_coefficients_and_passes_are_those_of_the_way(whole):
    found, _, _ = whole
    rows = {(row.way, row.person): row for row in found.results.answers}
    assert rows["soup", "Ana"].coefficients == pytest.approx({"kind": 0.75, "plain": 0.75})
    assert rows["soup", "Ana"].n_rows == 1
    assert rows["output-soup", "Ana"].n_rows == 3  # the reference and two experts
    assert rows["mod", "Ana"].n_rows == 2  # the sum is one, so the reference drops out
    assert rows["mod", "Bo"].n_rows == 1
    assert rows["base", "Bo"].coefficients == {}


def test_one_expert_at_full_share_is_itself_in_every_way_that_adds_up_to_one(whole):
    found, _, _ = whole
    texts = {(row.way, row.person, row.prompt): row.text for row in found.results.answers}
    for prompt in {row.prompt for row in found.results.answers}:
        assert texts["rewarded-soup", "Bo", prompt] == texts["mod", "Bo", prompt]


def test_log_ratios_are_zero_for_the_base_and_mostly_not_for_soups(whole):
    found, _, _ = whole
    by_way = {way: [r.log_ratio for r in found.results.answers if r.way == way] for way in WAYS}
    np.testing.assert_allclose(by_way["base"], 0.0, atol=1e-4)
    assert np.abs(by_way["soup"]).max() > 0.01


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
    ways = ["base", "soup"]
    with serving() as server:
        suite = suite_for(tmp_path, tiny_library, url=server.url, ways=ways)
        evaluate(suite, out=tmp_path / "whole")
        n_whole = n_generated[0]
        results = tmp_path / "whole/results.jsonl"
        lines = results.read_text().splitlines(keepends=True)
        torn = tmp_path / "torn"
        torn.mkdir()
        (torn / "results.jsonl").write_text("".join(lines[:4]) + lines[4][:30])
        n_generated[0] = 0
        server.questions.clear()
        found = evaluate(suite, out=torn)
        assert 0 < n_generated[0] < n_whole
        assert "cut off" in found.results.notes[0]
        n_generated[0] = 0
        server.questions.clear()
        again = evaluate(suite, out=torn)
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
        suite = suite_for(tmp_path, tiny_library, url=server.url)
        two = evaluate(suite, out=tmp_path / "out", n_workers=2)
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
        ways = ["base", "soup", "conditioned"]
        suite = suite_for(tmp_path, tiny_library, url=server.url, ways=ways)
        with pytest.raises(InvalidInputError, match="leave out the way 'conditioned'") as caught:
            evaluate(suite, out=tmp_path / "out", n_workers=2)
    assert str(caught.value).endswith(".")


def test_more_ways_can_be_added_and_another_suite_is_refused(tmp_path, tiny_library, n_generated):
    with serving() as server:
        evaluate(
            suite_for(tmp_path, tiny_library, url=server.url, ways=["base"]), out=tmp_path / "out"
        )
        n_generated[0] = 0
        larger = suite_for(tmp_path, tiny_library, url=server.url, ways=["base", "rewarded-soup"])
        found = evaluate(larger, out=tmp_path / "out")
        assert {row.way for row in found.results.answers} == {"base", "rewarded-soup"}
        other = larger.model_copy(update={"strength": 1.0})
        with pytest.raises(InvalidInputError, match="another 'strength'"):
            evaluate(other, out=tmp_path / "out")


@pytest.mark.parametrize("way", ["bespoke", "conditioned", "mixture", "best-of-n"])
def test_what_the_library_lacks_is_one_sentence(tmp_path, tiny_library, way):
    from palate.core.errors import PalateError

    with serving() as server:
        suite = suite_for(tmp_path, tiny_library, url=server.url, ways=["base", way])
        with pytest.raises(PalateError) as caught:
            evaluate(suite, out=tmp_path / "out")
    assert str(caught.value).endswith(".")


def test_prompts_that_portfolios_are_chosen_on_are_not_judged_on(tmp_path, tiny_library):
    with serving() as server:
        suite = suite_for(tmp_path, tiny_library, url=server.url, ways=["base", "portfolio-1"])
        mixed = suite.model_copy(update={"development": suite.prompts})
        with pytest.raises(InvalidInputError, match="among the development prompts"):
            evaluate(mixed, out=tmp_path / "out")


@pytest.mark.slow
def test_the_world_in_small_gives_the_whole_report(tmp_path):
    suite = Suite().quick()
    found = evaluate(suite, out=tmp_path)
    report = found.evaluation.report
    assert {score.way for score in report.scores} == set(suite.ways)
    assert report.tokens is not None
    assert len(report.examples) == 8
    page = (tmp_path / "report.html").read_text()
    for part in ("Which way to choose", "Who wrote which word", "Placement and cost"):
        assert part in page
    assert report.score("implicit-soup").facts["proposals_per_token"] >= 1.0
    assert report.score("portfolio-1").facts["worst_case_loss"] > 0
