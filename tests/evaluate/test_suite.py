import pytest

from palate.core.errors import InvalidInputError
from palate.core.settings import load_settings
from palate.evaluate.catalogue import entry_of
from palate.evaluate.entrant_name import EntrantName, parse_name
from palate.evaluate.entrants import require_methods
from palate.evaluate.suite import DEFAULT_METHODS, Suite


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
        ("methods: [soup]", "'base'"),
        ("methods: [base, soup, soup]", "occurs twice"),
        ("methods: [base, soup@]", "cannot be read"),
        ("ways: [base]", "'ways' is now called 'methods'"),
        ("strength: 2.0", "the strength is the library's own"),
        ("best_of: 4", "best-of-N"),
        ("development: d.jsonl", "portfolio.json"),
        ("seeds: []", "seeds"),
        ("library: mine", "its users"),
        ("judge: {kind: llm}", "'url'"),
        ("judge: {kind: rewards}", "'folder'"),
        (
            "{library: mine, prompts: p.jsonl, users: [{name: a, preference: {x: 1.0}}]}",
            "gold rules",
        ),
        (
            "users: [{name: a, preference: {x: 1.0}}, {name: a, preference: {x: 1.0}}]",
            "one name",
        ),
    ],
)
def test_a_suite_that_cannot_be_fair_is_refused_in_a_sentence(tmp_path, text, words):
    with pytest.raises(InvalidInputError, match=words):
        loaded(tmp_path, text)


def test_the_quick_suite_is_a_part_of_the_whole():
    quick = Suite().quick()
    assert quick.methods == DEFAULT_METHODS
    assert quick.seeds == (0,)
    assert quick.n_prompts < Suite().n_prompts
    assert quick.is_quick


@pytest.mark.parametrize("method", DEFAULT_METHODS)
def test_every_default_method_exists_and_is_described(method):
    require_methods([method])
    assert entry_of(method).runs_on


@pytest.mark.parametrize("name", ["magic", "portfolio-", "soup@", "soup@x", "mod+best-of-"])
def test_methods_that_do_not_exist_are_refused(name):
    with pytest.raises(InvalidInputError, match=r"unknown|cannot be read"):
        require_methods([name])


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("best-of-n", EntrantName("best-of-n")),
        ("soup@5", EntrantName("soup", 5)),
        ("prompt+best-of-4", EntrantName("prompt", None, 4)),
        ("auto@20+best-of-2", EntrantName("auto", 20, 2)),
    ],
)
def test_a_name_says_what_is_varied(name, parts):
    assert parse_name(name) == parts


def test_users_have_shapes(tmp_path):
    text = "users: [{name: a, preference: {x: 1.0}, shape: one}]"
    assert loaded(tmp_path, text).users[0].shape == "one"
