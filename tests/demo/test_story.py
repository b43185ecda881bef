"""The demo on a tiny library: every part, what is left out, and the files."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from palate.core.decision import Known
from palate.core.errors import InvalidInputError
from palate.demo.answers import Judge, Writer, gains_story
from palate.demo.report import DemoUser
from palate.demo.story import DemoSettings, demo_prompts, run_demo, token_story
from palate.library.features import scored_text
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.models.adapter import load_adapter
from palate.models.load import load_base
from palate.rewards.rules import rule_from
from palate.training.rollouts import Rollout, write_rollouts
from tiny import ANSWERS, OBJECTIVES

RULE = {"kind": "length", "unit": "characters", "low": 1, "high": 8, "prefer": "longer"}


@pytest.fixture(scope="module")
def library(tiny_full_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The full tiny library with rollouts of six prompts, enough to solve an expert from."""
    folder = tmp_path_factory.mktemp("demo") / "library"
    shutil.copytree(tiny_full_library, folder)
    opened = LibraryFolder.open(folder)
    base = load_base(opened.manifest.base.path)
    rows = [
        Rollout(prompt, answer, scored_text(base, prompt, answer).answer, -1.0, (0.5,) * 3, "stop")
        for prompt in "abcdef"
        for answer in ANSWERS
    ]
    opened.with_rollouts_begun(key="six").with_rollouts(
        key="six", write=lambda path: write_rollouts(path, rows, objectives=OBJECTIVES)
    )
    return Library.load(folder)


def test_every_part_is_shown_and_written(library: Library, tmp_path: Path) -> None:
    settings = DemoSettings(tmp_path, prompt="Why <b>?", rule=rule_from(RULE, objective="rule"))
    report = run_demo(library, settings)
    assert report.left_out == ()
    assert len(report.users) == 7  # all combinations of three objectives
    assert report.gains is not None
    assert report.gains.together.over_base.n == 7 * report.gains.n_prompts
    assert report.gains.together.over_base.n_clusters == report.gains.n_prompts
    assert report.gains.n_calibration == 8
    assert report.portfolio is not None
    assert report.portfolio.members == OBJECTIVES[:2]
    assert report.learned is not None
    assert 0 <= report.learned.n_agreeing <= report.learned.n_comparisons == 8
    assert report.tokens is not None
    assert report.tokens.method == "mixture"
    assert report.rule is not None
    assert report.rule.n_rollouts == 6 * len(ANSWERS)
    assert load_adapter(Path(report.rule.folder))["lm_head"].rank == 8
    page, data = (
        (tmp_path / "report.html").read_text(),
        json.loads((tmp_path / "report.json").read_text()),
    )
    assert "Why &lt;b&gt;?" in page
    assert "http" not in page
    assert "<script" not in page
    assert data["gains"]["together"]["over_base"]["n"] == 7 * report.gains.n_prompts


def test_the_same_seed_gives_the_same_report(library: Library, tmp_path: Path) -> None:
    settings = DemoSettings(tmp_path, seed=3)
    first, second = (replace(run_demo(library, settings), seconds=0.0) for _ in range(2))
    assert first == second


def test_what_a_library_lacks_is_left_out_with_its_reason(
    tiny_library: Path, tmp_path: Path
) -> None:
    report = run_demo(Library.load(tiny_library), DemoSettings(tmp_path))
    assert (report.gains, report.learned, report.portfolio, report.rule) == (None,) * 4
    assert [line.partition(":")[0] for line in report.left_out] == [
        "Gains and learning",
        "A further expert",
        "Portfolio",
    ]
    assert all(user.prompted is None for user in report.users)  # its objectives have no words
    assert report.tokens is not None
    assert "Left out. Portfolio" in (tmp_path / "report.html").read_text()


def test_an_empty_prompt_is_refused(library: Library, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="needs a prompt"):
        run_demo(library, DemoSettings(tmp_path, prompt=" "))


def test_gains_are_differences_of_utility() -> None:
    def score(_prompts, texts):
        return np.array([[float(one.split()[0]), float(one.split()[1])] for one in texts])

    def output(text: str) -> SimpleNamespace:
        return SimpleNamespace(text=text, decision=SimpleNamespace(predicted_utility=None))

    judge = Judge(SimpleNamespace(objectives=("a", "b"), score=score), ())
    outputs = {
        ("base", "", "p"): output("0.2 0.4"),
        ("auto", "ana", "p"): output("0.6 0.4"),
        ("prompt", "ana", "p"): output("0.6 0.8"),
        ("base", "", "q"): output("0.2 0.0"),
        ("auto", "ana", "q"): output("0.2 0.4"),
        ("prompt", "ana", "q"): output("0.2 0.2"),
    }
    users = [DemoUser("ana", {"a": 0.75, "b": 0.25})]
    gains = gains_story(SimpleNamespace(method_table=None), judge, users, outputs, seed=0)
    # by hand: over the base 0.75 * 0.4 and 0.25 * 0.4; over the prompt -0.25 * 0.4 and 0.25 * 0.2
    assert gains.users[0].over_base.estimate == pytest.approx(0.2)
    assert gains.together.over_prompt.estimate == pytest.approx(-0.025)
    assert gains.together.over_base.n_clusters == gains.n_prompts == 2


def test_no_answer_is_sampled_twice(library: Library) -> None:
    writer = Writer(library, seed=0)
    decisions = [
        library.decide("Why?", method="base"),
        library.decide("Why?", Known(coefficients={"kind": 1.0})),
    ]
    first = writer.write(decisions, name="answers")
    again = writer.write(decisions[::-1], name="answers")
    assert again[0].completion is first[1].completion
    assert again[1].completion is first[0].completion
    other = replace(decisions[0], reason="Another user's.")
    both = writer.write([decisions[0], other], name="answers")
    assert both[0].completion is both[1].completion
    assert [one.decision for one in both] == [decisions[0], other]


def test_of_a_soup_every_token_has_its_authors(tiny_soup_library: Path) -> None:
    opened = Library.load(tiny_soup_library)
    user = DemoUser("ana", {"kind": 0.5, "plain": 0.5})
    story = token_story(Writer(opened, seed=0), user, "Why?")
    assert story.method == "soup"
    assert story.explanation.experts == ("base", "kind", "plain")
    for token in story.explanation.tokens:
        assert sum(token.responsibilities) == pytest.approx(1.0)


def test_the_demo_has_sixteen_different_questions() -> None:
    prompts = demo_prompts()
    assert len(set(prompts)) == 16
    assert all(prompt.endswith(("?", ".")) for prompt in prompts)
