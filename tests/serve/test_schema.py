"""Schemathesis against the OpenAPI schema: no 5xx and no status that is not documented."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from palate.serve.state import Served

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
N_CASES = 3000  # that are aimed at, over all operations
MODES = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
Statuses = Counter[tuple[str, int]]


def try_cases(cases: SearchStrategy[Any], *, n_cases: int, statuses: Statuses) -> None:
    @settings(
        max_examples=n_cases,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def run(case: schemathesis.Case) -> None:
        response = case.call()
        statuses[case.operation.label, response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    try:
        run()
    except Unsatisfiable:  # an operation without parameters cannot be asked wrongly
        return


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_request_of_the_schema_breaks_the_server(
    make_served: Callable[..., Served], listen: Callable[[Served], tuple[str, Callable[[], None]]]
) -> None:
    served = make_served(default_tokens=2, max_tokens=8, question_tokens=4, n_candidates=3)
    address, stop = listen(served)
    statuses: Statuses = Counter()
    try:
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        each = -(-N_CASES // (2 * len(operations)))
        for operation in operations:
            for mode in MODES:
                cases = operation.as_strategy(generation_mode=mode)
                try_cases(cases, n_cases=each, statuses=statuses)
    finally:
        stop()
    print(sum(statuses.values()), dict(statuses))  # noqa: T201  for the report
    assert sum(statuses.values()) >= 2000
    assert sum(count for (_, status), count in statuses.items() if status < 300) >= 200
