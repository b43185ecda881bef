import pytest

from palate.core.errors import InvalidInputError
from palate.core.settings import load_settings
from palate.evaluate.catalogue import entry_of
from palate.evaluate.suite import DEFAULT_WAYS, Suite
from palate.recipes.evaluate_ways import way_named


def loaded(tmp_path, text):
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    return load_settings(Suite, path)


def test_an_empty_suite_is_the_worlds(tmp_path):
    suite = loaded(tmp_path, "")
    assert suite.library == "world"
    assert suite.seeds == (0, 1, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour: red", "colour"),
        ("ways: [soup]", "'base'"),
        ("ways: [base, soup, soup]", "occurs twice"),
        ("seeds: []", "seeds"),
        ("library: mine", "its people"),
        ("judge: {kind: llm}", "'url'"),
        ("judge: {kind: rewards}", "'folder'"),
        (
            "{library: mine, prompts: p.jsonl, people: [{name: a, preference: {x: 1.0}}]}",
            "gold rules",
        ),
        (
            "people: [{name: a, preference: {x: 1.0}}, {name: a, preference: {x: 1.0}}]",
            "one name",
        ),
    ],
)
def test_a_suite_that_cannot_be_fair_is_refused_in_a_sentence(tmp_path, text, words):
    with pytest.raises(InvalidInputError, match=words):
        loaded(tmp_path, text)


def test_the_quick_suite_is_a_part_of_the_whole():
    quick = Suite().quick()
    assert set(quick.ways) < set(DEFAULT_WAYS)
    assert quick.seeds == (0,)
    assert quick.is_quick


@pytest.mark.parametrize("way", DEFAULT_WAYS)
def test_every_default_way_exists_and_is_described(way):
    assert callable(way_named(way))
    assert entry_of(way).runs_on


@pytest.mark.parametrize("name", ["magic", "portfolio-", "portfolio-x", "soup@", "mod@3"])
def test_ways_that_do_not_exist_are_refused(name):
    with pytest.raises(InvalidInputError, match="unknown"):
        way_named(name)
