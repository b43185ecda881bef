import json
from dataclasses import replace

import numpy as np
import pytest

from palate.core.errors import CheckFailedError, FormatError, InvalidInputError
from palate.core.files import hash_value
from palate.core.types import PayoffTable
from palate.portfolio.choice import PortfolioRequest, choose
from palate.portfolio.record import differences, load_record, save_record, verify_record
from palate.portfolio.terms import Terms
from research.portfolio.exact import exact_payoffs


@pytest.fixture
def path(tmp_path):
    values = np.array([[1.0, 0.1, 0.2], [0.1, 1.0, 0.3], [0.7, 0.7, 0.1], [0.2, 0.3, 0.9]])
    table = PayoffTable(
        objectives=("a", "b", "c"),
        policies=("p", "q", "r", "s"),
        values=values,
        standard_errors=np.full_like(values, 0.003),
        beta=0.1,
        kl=np.array([1.0, 2.0, 0.5, 1.5]),
        preferences=np.full_like(values, np.nan),
    )
    record = choose(
        exact_payoffs(table),
        request=PortfolioRequest(size=2),
        terms=Terms(floor=("a", 0.15), offset=0.1),
    )
    save_record(tmp_path / "portfolio.json", record)
    return tmp_path / "portfolio.json"


def numbers(value, place=()):
    """Places of all numbers in plain data."""
    if isinstance(value, dict):
        return [p for key, inner in value.items() for p in numbers(inner, (*place, key))]
    if isinstance(value, list):
        return [p for key, inner in enumerate(value) for p in numbers(inner, (*place, key))]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return [place] if is_number else []


def changed(content, place, change):
    copy = json.loads(json.dumps(content))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = change(inner[place[-1]])
    return copy


def test_what_was_selected_verifies(path):
    record = verify_record(path)
    assert record.members == load_record(path).members
    assert record.refused == ("q",)


def test_any_altered_number_fails(path):
    content = json.loads(path.read_text())
    places = [place for place in numbers(content) if place != ("schema_version",)]
    assert len(places) >= 60
    for place in places:
        path.write_text(json.dumps(changed(content, place, lambda number: number + 0.001)))
        with pytest.raises(CheckFailedError):
            verify_record(path)


def test_a_certificate_number_altered_together_with_the_digest_still_fails(path):
    content = json.loads(path.read_text())
    for place in numbers(content["certificate"], ("certificate",)):
        altered = changed(content, place, lambda number: number * 0.9 + 0.001)
        body = {
            key: value
            for key, value in altered.items()
            if key not in ("kind", "schema_version", "sha256")
        }
        path.write_text(json.dumps({**altered, "sha256": hash_value(body)}))
        with pytest.raises(CheckFailedError, match=r"certificate\."):
            verify_record(path)


def test_an_altered_name_or_sentence_fails(path):
    content = json.loads(path.read_text())
    other = changed(content, ("members", 0), lambda _: "s" if content["members"][0] != "s" else "r")
    softer = changed(content, ("certificate", "assumptions", 0), lambda _: "Nothing is assumed.")
    for altered in (other, softer):
        path.write_text(json.dumps(altered))
        with pytest.raises(CheckFailedError):
            verify_record(path)


def test_the_proof_can_be_checked_by_hand(path):
    content = json.loads(path.read_text())
    proof = content["proof"]
    bound = np.array(proof["instead"]) - np.array(proof["mixture"]) @ proof["lower_values"]
    assert bound.max() == pytest.approx(content["certificate"]["additive_gap"], abs=1e-12)


def test_files_of_another_kind_or_with_parts_missing_are_refused(path, tmp_path):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "kind": "palate-soup"}))
    with pytest.raises(FormatError, match="palate-soup"):
        verify_record(path)
    del content["terms"]
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError, match="lacks or garbles"):
        load_record(path)
    with pytest.raises(CheckFailedError):
        verify_record(path)
    with pytest.raises(InvalidInputError, match="does not exist"):
        verify_record(tmp_path / "absent.json")


def test_differences_are_named_by_place():
    assert differences({"a": [1.0, 2.0]}, {"a": [1.0, 2.0 + 1e-12]}) == []
    assert differences({"a": [1.0, 2.0]}, {"a": [1.0, 2.1]}) == ["a[1]"]
    assert differences({"a": {"b": "x"}}, {"a": {"b": "y"}}) == ["a.b"]
    assert differences({"a": 1, "more": 2}, {"a": 1}) == ["more"]
    assert differences({"a": [1]}, {"a": [1, 2]}) == ["a"]
    assert differences({"a": True}, {"a": 1.5}) == ["a"]


@pytest.mark.parametrize(("size", "slack"), [(2, None), (2, "listed"), (1, "listed"), (1, 0.01)])
def test_a_portfolio_without_a_gap_or_with_listed_slacks_comes_back_and_verifies(
    tmp_path, size, slack
):
    values = np.array([[1.0, 0.1], [0.1, 1.0]])
    table = PayoffTable(
        objectives=("a", "b"),
        policies=("p", "q"),
        values=values,
        standard_errors=np.full_like(values, 0.003),
        beta=0.1,
        kl=np.ones(2),
        preferences=np.eye(2),
    )
    payoffs = replace(exact_payoffs(table), slacks=np.array([0.01, 0.02]), slack_confidence=0.975)
    record = choose(payoffs, request=PortfolioRequest(size=size), terms=Terms(slack=slack))
    save_record(tmp_path / "portfolio.json", record)
    again = verify_record(tmp_path / "portfolio.json")
    assert again.terms.slack == slack
    assert again.certified.certificate == record.certified.certificate
    assert (again.certified.certificate.additive_gap is None) == (slack is None)
    content = json.loads((tmp_path / "portfolio.json").read_text())
    content["certificate"]["additive_gap"] = 0.0
    (tmp_path / "portfolio.json").write_text(json.dumps(content))
    with pytest.raises(CheckFailedError):
        verify_record(tmp_path / "portfolio.json")
