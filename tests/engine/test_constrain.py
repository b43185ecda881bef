"""Answers kept to a JSON schema, and biased tokens, on the pooled distribution."""

import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from palate.core.errors import InvalidInputError, MissingExtraError
from palate.core.plan import Plan, Pool, Row
from palate.core.protocols import Request, SamplingParams
from palate.engine.bank import AdapterBank
from palate.engine.constrain import json_constraint
from palate.engine.local import LocalEngine
from palate.engine.remote import RemoteSession
from palate.models.load import Base

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 4},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"enum": ["red", "blue"]}, "maxItems": 2},
        "nice": {"type": "boolean"},
    },
    "required": ["name", "age", "tags", "nice"],
    "additionalProperties": False,
}
ROWS = (Row((1.0, 0.0, 0.0, 0.0)), Row((0.0, 0.7, 0.4, 0.0)))
PLANS = {
    "soup": Plan((Row((0.6, 0.5, 0.0, 0.2)),), Pool("single")),
    "log-linear": Plan(ROWS, Pool("log_linear", (0.4, 0.6))),
    "implicit": Plan(ROWS, Pool("log_linear", (1.3, -0.3), is_implicit=True)),
    "mixture": Plan(ROWS, Pool("linear", (0.4, 0.6))),
}


@pytest.fixture(scope="module")
def engine(base: Base, bank: AdapterBank) -> LocalEngine:
    return LocalEngine(base, bank)


def request_of(plan: Plan, constraint: Any = None, **options: Any) -> Request:
    sampling = SamplingParams(max_tokens=options.pop("max_tokens", 120), temperature=1.0)
    return Request("Who?", plan, sampling, constraint=constraint, **options)


def is_valid(text: str) -> bool:
    """By hand: nothing that follows the schema is known here but Python's own JSON."""
    found = json.loads(text)
    assert list(found) == ["name", "age", "tags", "nice"]
    assert len(found["name"]) <= 4
    assert 0 <= found["age"] <= 99
    assert len(found["tags"]) <= 2
    return {*found["tags"]} <= {"red", "blue"} and isinstance(found["nice"], bool)


@pytest.mark.parametrize("kind", PLANS)
def test_every_answer_is_json_by_the_schema_and_each_seed_has_its_own(
    engine: LocalEngine, kind: str
) -> None:
    constraint = json_constraint(engine.base, SCHEMA)
    requests = [request_of(PLANS[kind], constraint, seed=seed) for seed in range(12)]
    answers = engine.generate([*requests, request_of(PLANS[kind], seed=3)])
    assert all(is_valid(one.text) and one.finish == "stop" for one in answers[:12])
    assert len({one.text for one in answers[:12]}) == 12
    assert not answers[12].text.startswith("{")  # the one without is free, in the same batch
    assert engine.generate(requests[4:5])[0].text == answers[4].text  # as alone


def test_log_probabilities_stay_those_of_the_plan(engine: LocalEngine) -> None:
    plan = PLANS["mixture"]
    kept = engine.trace([request_of(plan, json_constraint(engine.base, SCHEMA))])[0]
    pooled = np.log((np.exp(kept.row_log_probs) * kept.shares).sum(axis=1))
    np.testing.assert_allclose(kept.completion.log_probs, pooled, atol=1e-5)
    assert kept.completion.log_probs[0] < -0.1  # the first brace was not all there was


def test_a_form_that_needs_more_tokens_ends_with_its_length(engine: LocalEngine) -> None:
    constraint = json_constraint(engine.base, {"type": "string", "minLength": 50})
    (answer,) = engine.generate([request_of(PLANS["soup"], constraint, max_tokens=10)])
    assert answer.finish == "length"
    assert answer.text.startswith('"')
    assert len(answer.tokens) == 10


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "integer", "minimum": 5, "maximum": 1}, "greater than maximum"),
        ({"type": "colour"}, "Invalid type: colour"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"$ref": "http://127.0.0.1/schema"}, "does not fetch"),
        ({"type": "string", "pattern": "("}, "regex parse error"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused(
    engine: LocalEngine, schema: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidInputError, match=rf"cannot be followed \(.*{reason}.*change it\.$"):
        json_constraint(engine.base, schema)


def test_a_constraint_that_fails_ends_its_own_answer_alone(engine: LocalEngine) -> None:
    class Failing:
        def copy(self) -> "Failing":
            return self

        def allowed(self) -> Any:
            raise InvalidInputError("The answer cannot be kept to its JSON schema (x); simplify.")

        def take(self, token: int, /) -> None: ...

    session = engine.open_session()
    bad = session.add_request(request_of(PLANS["soup"], Failing()))
    good = session.add_request(request_of(PLANS["soup"], max_tokens=3))
    while not session.is_idle:
        session.step()
    assert "JSON schema" in str(bad.error)
    assert good.error is None
    assert len(good.tokens) == 3


def test_a_missing_package_is_named(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtraError, match=r"install palate\[serve\]"):
        json_constraint(engine.base, SCHEMA)


@pytest.mark.parametrize("kind", PLANS)
def test_a_bias_decides_and_bans(engine: LocalEngine, kind: str) -> None:
    plan = PLANS[kind]
    (wanted,) = engine.generate([request_of(plan, max_tokens=6, logit_bias={77: 100.0})])
    assert set(wanted.tokens) == {77}
    free = engine.generate([request_of(plan, max_tokens=20)])[0]
    banned = dict.fromkeys(free.tokens, -100.0)
    other = engine.generate([request_of(plan, max_tokens=20, logit_bias=banned)])[0]
    assert not {*other.tokens} & {*free.tokens}


def test_a_bias_on_no_token_and_engines_of_other_servers_are_refused(engine: LocalEngine) -> None:
    with pytest.raises(InvalidInputError, match="ids go from 0 to 258; leave it out"):
        engine.generate([request_of(PLANS["soup"], logit_bias={259: 1.0})])
    plain = request_of(PLANS["soup"])
    session = RemoteSession(type("Maker", (), {"max_num_seqs": 1})())
    for change in ({"logit_bias": {5: 1.0}}, {"constraint": json_constraint(engine.base, SCHEMA)}):
        with pytest.raises(InvalidInputError, match="Engines on other servers keep"):
            session.add_request(replace(plain, **change))
    session.close()
