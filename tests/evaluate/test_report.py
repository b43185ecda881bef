import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from evaluate.board import FACTS, PEOPLE, PROMPTS, rows, suite
from palate.evaluate.advice import _comparisons, advice
from palate.evaluate.markdown import render_markdown
from palate.evaluate.page import bytes_text, figures, render_page
from palate.evaluate.report import failures_of, make_report
from palate.evaluate.rows import FactRow, Results, open_results

WAYS = ("base", "soup", "portfolio-1", "portfolio-3", "soup@0", "soup@5", "bespoke")
TOKENS = FactRow(
    "shares_per_token",
    "mixture",
    0,
    2.0,
    "ana",
    {
        "prompt": "p",
        "tokens": ["a", " b"],
        "experts": ["short", "long"],
        "shares": [[0.5, 0.5], [0.1, 0.9]],
        "text": "a b",
    },
)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "results.jsonl"
    bound = FactRow("worst_case_loss", "portfolio-1", 0, 0.3)
    Results(path).append([*rows(WAYS), *FACTS, TOKENS, bound])
    return path


@pytest.fixture(scope="module")
def report(filled):
    return make_report(suite(WAYS), open_results(filled))


def test_the_headline_table_is_recomputed_from_the_file_alone(filled, report):
    lines = [json.loads(line) for line in filled.read_text().splitlines()]
    answers = [line for line in lines if line["kind"] == "answer"]
    for found in report.to_json()["ways"]:
        own = [line["utility"] for line in answers if line["way"] == found["way"]]
        base = [line["utility"] for line in answers if line["way"] == "base"]
        mean = sum(own) / len(own)
        assert found["utility"]["estimate"] == pytest.approx(mean)
        assert found["utility"]["n"] == len(own) == len(PEOPLE) * len(PROMPTS) * 2
        assert found["gain"]["estimate"] == pytest.approx(mean - sum(base) / len(base))
        by_person = {}
        for line in answers:
            if line["way"] == found["way"]:
                by_person.setdefault(line["person"], []).append(line["utility"])
        assert found["worst_person"] == pytest.approx(
            min(sum(v) / len(v) for v in by_person.values())
        )


def test_every_utility_of_a_row_is_the_preference_times_its_rewards(filled):
    preferences = {person["name"]: person["preference"] for person in suite()["people"]}
    for line in filled.read_text().splitlines():
        row = json.loads(line)
        if row["kind"] == "answer":
            worth = sum(s * row["rewards"][o] for o, s in preferences[row["person"]].items())
            assert row["utility"] == pytest.approx(worth)


def test_the_page_asks_nothing_of_the_network(report):
    page = render_page(report)
    assert not re.search(r"(src|href)=\"(?!#)", page.replace("xlink:href", "x"))
    assert "@import" not in page
    assert "<script" not in page
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", page))
    assert all(
        address.startswith("http://www.w3.org/") for address in addresses
    )  # names, not asked


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        if tag == "section":
            self.ids.append(named["id"])
        if tag == "a":
            self.links.append(named["href"])
        if tag not in {"meta", "br", "path", "use", "image"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()


def test_the_page_has_every_part_and_its_links_lead_there(report):
    tags = _Tags()
    tags.feed(render_page(report))
    assert tags.open == []
    assert [link.removeprefix("#") for link in tags.links] == tags.ids
    wanted = {"choose", "board", "wins", "fronts", "curves", "cost", "answers", "tokens", "failed"}
    assert wanted <= set(tags.ids)


def test_texts_of_models_are_escaped():
    nasty = [type(row)(**{**vars(row), "text": "<script>alert(1)</script>"}) for row in rows(WAYS)]
    page = render_page(make_report(suite(WAYS), Results(None, [*nasty])))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_figures_take_their_ink_from_the_page(report):
    for name, svg in figures(report).items():
        assert svg.startswith("<svg "), name
        assert "currentColor" in svg
        assert 'aria-label="' in svg


def test_markdown_and_advice_speak_of_the_best_way_with_its_number(report):
    sentences = advice(report)
    best = max((s for s in report.scores if s.way == "soup"), key=lambda s: s.utility.estimate)
    assert "Parameter soup" in sentences[0]
    assert f"{best.utility.estimate:.3f}" in sentences[0]
    text = render_markdown(report)
    for sentence in sentences:
        assert sentence in text
    assert "Portfolio of 3" in text
    assert "Learned soup, after 5" in text


def learned_with(p_adjusted):
    """The advice where soup@5 gains 0.1, with an adjusted p-value put in its place."""
    learned = [
        type(row)(**{**vars(row), "way": "soup@5", "utility": row.utility + 0.1})
        for row in rows(("base",))
    ]
    found = make_report(suite(("base", "soup@5")), Results(None, [*rows(("base",)), *learned]))
    scores = tuple(
        replace(score, p_adjusted=p_adjusted) if score.way == "soup@5" else score
        for score in found.scores
    )
    return " ".join(_comparisons(replace(found, scores=scores)).split())


def test_a_gain_by_comparisons_is_claimed_only_after_correction_for_the_table():
    assert "5 comparisons gain 0.100" in learned_with(0.04)
    assert "does not gain beyond doubt" in learned_with(0.06)


def test_a_portfolio_that_beats_experts_of_ones_own_is_no_loss():
    better = [
        type(row)(**{**vars(row), "way": "portfolio-3", "utility": row.utility + 0.1})
        for row in rows(("bespoke",))
    ]
    ways = ("base", "bespoke", "portfolio-3")
    found = make_report(suite(ways), Results(None, [*rows(("base", "bespoke")), *better]))
    assert found.gap[0].difference.is_significant()
    assert "from 3 members on the loss is not told from zero" in " ".join(advice(found))


def test_ways_that_cost_a_training_per_person_are_no_advice(report):
    assert not any("Bespoke" in sentence for sentence in advice(report))


def test_what_fell_short_is_said_with_its_number(report):
    found = " ".join(report.failures)
    assert "Parameter soup 83.3%" in found  # one prompt in six is broken
    assert "Portfolio of 1 +0.000" in found  # it never gains
    fallback = FactRow("proposals_per_token", "implicit-soup", 1, 9.5, "", {"fallback_share": 0.2})
    assert "9.5 proposals" in " ".join(failures_of((), report.cells, [fallback]))


def test_json_can_be_written_and_read(report):
    assert json.loads(json.dumps(report.to_json()))["n_people"] == len(PEOPLE)


@pytest.mark.parametrize(
    ("value", "text"), [(24.0, "24 B"), (2048.0, "2 KiB"), (3 * 1024.0**2, "3 MiB")]
)
def test_bytes_are_written_for_people(value, text):
    assert bytes_text(value) == text


def test_where_the_wish_helps_in_words_the_best_way_without_them_is_named_too():
    told = [
        type(row)(**{**vars(row), "way": "soup-told", "utility": row.utility + 0.1})
        for row in rows(("soup",))
    ]
    ways = ("base", "soup", "soup-told")
    found = make_report(suite(ways), Results(None, [*rows(("base", "soup")), *told]))
    sentences = advice(found)
    assert "choose Soup, told" in sentences[0]
    unspoken = next(
        sentence for sentence in sentences if "cannot be put into the prompt" in sentence
    )
    assert "Parameter soup" in unspoken
    assert f"{found.score('soup').utility.estimate:.3f}" in unspoken
    silent = make_report(suite(("base", "soup")), Results(None, rows(("base", "soup"))))
    assert not any("cannot be put into the prompt" in sentence for sentence in advice(silent))


@pytest.mark.parametrize(("core_share", "is_quiet"), [(0.99, True), (0.5, False)])
def test_speeds_that_others_disturbed_are_called_so(core_share, is_quiet):
    speed = FactRow("slower_than_base", "soup", 0, 1.5, detail={"core_share": core_share})
    found = make_report(suite(), Results(None, [*rows(), speed]))
    assert found.to_json()["speeds"] == {"core_share": core_share, "are_comparable": is_quiet}
    page = render_page(found)
    assert ("not comparable here" in page) == (not is_quiet)
    assert ("(1.5x)" in page) == (not is_quiet)
