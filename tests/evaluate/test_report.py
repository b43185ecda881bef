import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from evaluate.board import FACTS, PROMPTS, USERS, rows, suite
from palate.evaluate.page import advice, bytes_text, figures, render_markdown, render_page
from palate.evaluate.report import failures_of, make_report, wanted_text
from palate.evaluate.rows import FactRow, Results, open_results

METHODS = ("base", "soup", "portfolio", "prompt", "auto", "soup@0", "soup@5", "bespoke")
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
    bound = FactRow("certified_loss", "portfolio", 0, 0.3)
    Results(path).append([*rows(METHODS), *FACTS, TOKENS, bound])
    return path


@pytest.fixture(scope="module")
def report(filled):
    return make_report(suite(METHODS), open_results(filled))


def test_the_headline_table_is_recomputed_from_the_file_alone(filled, report):
    lines = [json.loads(line) for line in filled.read_text().splitlines()]
    answers = [line for line in lines if line["kind"] == "answer"]
    for found in report.to_json()["methods"]:
        own = [line["utility"] for line in answers if line["method"] == found["method"]]
        base = [line["utility"] for line in answers if line["method"] == "base"]
        mean = sum(own) / len(own)
        assert found["utility"]["estimate"] == pytest.approx(mean)
        assert found["utility"]["n"] == len(own) == len(USERS) * len(PROMPTS) * 2
        gain = found["gain"]["estimate"] if found["gain"] else 0.0
        assert gain == pytest.approx(mean - sum(base) / len(base))
        by_user = {}
        for line in answers:
            if line["method"] == found["method"]:
                by_user.setdefault(line["user"], []).append(line["utility"])
        assert found["worst_user"] == pytest.approx(min(sum(v) / len(v) for v in by_user.values()))


def test_every_utility_of_a_row_is_the_preference_times_its_rewards(filled):
    preferences = {user["name"]: user["preference"] for user in suite()["users"]}
    for line in filled.read_text().splitlines():
        row = json.loads(line)
        if row["kind"] == "answer":
            worth = sum(s * row["rewards"][o] for o, s in preferences[row["user"]].items())
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
    wanted = {"choose", "board", "shapes", "frontier", "auto", "wins", "fronts", "curves", "cost"}
    wanted |= {"answers", "tokens", "failed"}
    assert wanted <= set(tags.ids)


def test_texts_of_models_are_escaped():
    nasty = [
        type(row)(**{**vars(row), "text": "<script>alert(1)</script>"}) for row in rows(METHODS)
    ]
    page = render_page(make_report(suite(METHODS), Results(None, [*nasty])))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_figures_take_their_ink_from_the_page(report):
    for name, svg in figures(report).items():
        assert svg.startswith("<svg "), name
        assert "currentColor" in svg
        assert 'aria-label="' in svg


def test_markdown_and_advice_speak_of_the_best_method_with_its_number(report):
    sentences = advice(report)
    best = report.score("soup")
    assert "Soup" in sentences[0]
    assert f"{best.utility.estimate:.3f}" in sentences[0]
    text = render_markdown(report)
    for sentence in sentences:
        assert sentence in text
    assert "Portfolio (PALM)" in text
    assert "Soup, after 5 comparisons" in text
    for heading in ("By shape: all users (4)", "of the shape two (2)", "Utility against cost"):
        assert heading in text
    assert "Auto" in text


def test_old_words_are_gone(report):
    text = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", render_page(report), flags=re.DOTALL)
    for words in (text, render_markdown(report)):
        found = re.findall(r"\b(ways?|persons?|people|tastes?|told apart|arms?|asked)\b", words)
        assert found == []


def learned_with(p_adjusted):
    """The advice where soup@5 gains 0.1, with an adjusted p-value put in its place."""
    gains = {"base": 0.0, "prompt": 0.05, "soup@5": 0.1}
    methods = tuple(gains)
    found = make_report(suite(methods), Results(None, rows(methods, gains=gains)))
    scores = tuple(
        replace(score, gain=replace(score.gain, p_adjusted=p_adjusted))
        if score.method == "soup@5"
        else score
        for score in found.scores
    )
    sentences = advice(replace(found, scores=scores))
    return next(one for one in sentences if one.startswith("Soup"))


def test_a_gain_by_comparisons_is_claimed_only_after_correction_for_the_table():
    assert "5 comparisons gain 0.100" in learned_with(0.04)
    assert "not significantly different from the base" in learned_with(0.06)


def test_methods_that_cost_a_training_per_user_are_no_advice(report):
    assert not any("Bespoke" in sentence for sentence in advice(report))


def test_what_fell_short_is_said_with_its_number(report):
    found = " ".join(report.failures)
    assert "Soup 83.3%" in found  # one prompt in six is broken
    assert "Portfolio (PALM) +0.000" in found  # it never gains
    fallback = FactRow("proposals_per_token", "implicit-soup", 1, 9.5, "", {"fallback_share": 0.2})
    assert "9.5 proposals" in " ".join(failures_of((), report.cells, [fallback]))


def test_json_can_be_written_and_read(report):
    assert json.loads(json.dumps(report.to_json()))["n_users"] == len(USERS)


@pytest.mark.parametrize(
    ("value", "text"), [(24.0, "24 B"), (2048.0, "2 KiB"), (3 * 1024.0**2, "3 MiB")]
)
def test_bytes_are_written_for_users(value, text):
    assert bytes_text(value) == text


def test_where_words_help_the_best_method_without_them_is_named_too():
    gains = {"base": 0.0, "soup": 0.2, "prompted-soup": 0.3}
    methods = tuple(gains)
    found = make_report(suite(methods), Results(None, rows(methods, gains=gains)))
    sentences = advice(found)
    assert "choose Prompted soup" in sentences[0]
    unspoken = next(
        sentence for sentence in sentences if "cannot be put into the prompt" in sentence
    )
    assert "Soup" in unspoken
    assert f"{found.score('soup').utility.estimate:.3f}" in unspoken
    silent = make_report(suite(("base", "soup")), Results(None, rows(("base", "soup"))))
    assert not any("cannot be put into the prompt" in sentence for sentence in advice(silent))


def test_shares_are_named_where_they_differ():
    assert wanted_text({"short": 0.5, "kind": 0.5}) == "short, kind"
    assert (
        wanted_text({"short": 0.7, "kind": 0.2, "plain": 0.1})
        == "short 70 %, kind 20 %, plain 10 %"
    )


@pytest.mark.parametrize(("core_share", "is_quiet"), [(0.99, True), (0.5, False)])
def test_speeds_that_others_disturbed_are_called_so(core_share, is_quiet):
    speed = FactRow("slower_than_base", "soup", 0, 1.5, detail={"core_share": core_share})
    found = make_report(suite(), Results(None, [*rows(), speed]))
    assert found.to_json()["speeds"] == {"core_share": core_share, "are_comparable": is_quiet}
    page = render_page(found)
    assert ("not comparable here" in page) == (not is_quiet)
    assert ("(1.5x)" in page) == (not is_quiet)
