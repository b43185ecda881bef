import pytest

from palate.core.errors import InvalidInputError
from palate.core.settings import load_settings
from palate.evaluate.catalogue import EntrantName, entry_of, parse_name
from palate.evaluate.context import require_methods
from palate.evaluate.rivals import RIVALS
from palate.evaluate.suite import Suite
from palate.methods.table import METHODS

LEAST = "users: [{name: a, preference: {x: 1.0}}]\nprompts: p.jsonl\n"


def loaded(tmp_path, text):
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    return load_settings(Suite, path)


def test_users_and_prompts_are_all_that_a_suite_needs(tmp_path):
    suite = loaded(tmp_path, LEAST)
    assert suite.seeds == (0,)
    assert suite.judge.label == "held-back"
    assert loaded(tmp_path, LEAST.replace("p.jsonl", "[one, two]")).prompts == ("one", "two")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour: red", "colour"),
        ("methods: [soup]", "'base'"),
        ("methods: [base, soup, soup]", "occurs twice"),
        ("methods: [base, soup@]", "cannot be read"),
        ("ways: [base]", "'ways'"),
        ("strength: 2.0", "'strength'"),
        ("seeds: []", "seeds"),
        ("judge: {kind: llm}", "'url'"),
        ("judge: {kind: rewards}", "'folder'"),
        ("judge: {kind: function}", "'function'"),
    ],
)
def test_a_suite_that_cannot_be_fair_is_refused_in_a_sentence(tmp_path, text, words):
    with pytest.raises(InvalidInputError, match=words):
        loaded(tmp_path, LEAST + text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prompts: p.jsonl", "users"),
        ("users: [{name: a, preference: {x: 1.0}}]", "prompts"),
        (
            "users: [{name: a, preference: {x: 1.0}}, {name: a, preference: {x: 1.0}}]\nprompts: p",
            "one name",
        ),
    ],
)
def test_a_suite_without_users_or_prompts_is_refused(tmp_path, text, words):
    with pytest.raises(InvalidInputError, match=words):
        loaded(tmp_path, text)


@pytest.mark.parametrize("method", [*METHODS, *RIVALS, "personalised-soup", "bespoke"])
def test_every_method_and_rival_is_described(method):
    require_methods([method], ("personalised-soup", "bespoke"))  # the board's own
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
    text = LEAST.replace("1.0}", "1.0}, shape: one", 1)
    assert loaded(tmp_path, text).users[0].shape == "one"
