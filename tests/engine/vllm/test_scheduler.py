"""Rows wait for their group, and for nothing else; what a row may ask for is checked when it comes.

Only the names that these two files import from vLLM are stood in for; `test_vllm_plugin.py` runs
both inside a real one.
"""

import importlib
import sys
import time
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from palate.core.errors import InvalidInputError
from palate.engine.vllm.groups import GUARD, PROBE, PROTOCOL, GroupRow, GroupTag

TAG = GroupTag("g", 0, (0.5, 0.5), "linear", 1)


class BareScheduler:
    """vLLM's own: everything may begin."""

    def __init__(self) -> None:
        self.requests: dict[str, Any] = {}

    def _handle_blocked_waiting_request(self, request: Any) -> bool:
        return not getattr(request, "is_blocked", False)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch):
    """Imports a file as if inside a vLLM's environment."""
    names = {
        "vllm": {},
        "vllm.logger": {"init_logger": lambda _: SimpleNamespace(warning=print)},
        "vllm.v1": {},
        "vllm.v1.core": {},
        "vllm.v1.core.sched": {},
        "vllm.v1.core.sched.scheduler": {"Scheduler": BareScheduler},
        "vllm.v1.sample": {},
        "vllm.v1.sample.logits_processor": {"BatchUpdate": object, "LogitsProcessor": object},
        "vllm.v1.sample.logits_processor.builtin": {"process_dict_updates": None},
    }
    for name, holds in names.items():
        module = ModuleType(name)
        vars(module).update(holds)
        monkeypatch.setitem(sys.modules, name, module)

    def load(name: str) -> ModuleType:
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


def request_of(tag: GroupTag | None, *, age: float = 0.0, n_drawn: int = 0) -> SimpleNamespace:
    xargs = None if tag is None else tag.to_xargs()
    return SimpleNamespace(
        sampling_params=SimpleNamespace(extra_args=xargs),
        num_output_tokens=n_drawn,
        arrival_time=time.time() - age,
    )


def test_a_row_waits_for_its_group_but_not_for_ever_and_others_do_not_wait(inside) -> None:
    scheduler = inside("palate.engine.vllm.scheduler").GroupScheduler()
    may_begin = scheduler._handle_blocked_waiting_request
    first, second = request_of(TAG), request_of(replace(TAG, row=1))
    other, plain = request_of(replace(TAG, group="h")), request_of(None)
    scheduler.requests = {"1": first, "2": other, "3": plain}
    assert [may_begin(one) for one in (first, other, plain)] == [False, False, True]
    scheduler.requests["4"] = second
    assert [may_begin(one) for one in (first, second, other)] == [True, True, False]
    second.is_blocked = True  # for a reason of vLLM's own
    assert not may_begin(second)
    assert may_begin(request_of(TAG, age=6.0))  # the plugin ends it then
    assert may_begin(request_of(replace(TAG, group="i"), n_drawn=3))  # put back in the middle
    assert may_begin(SimpleNamespace(sampling_params=None, num_output_tokens=0, arrival_time=0.0))


def params_of(**changes: Any) -> SimpleNamespace:
    values = {
        "extra_args": TAG.to_xargs(),
        "temperature": 0.0,
        "n": 1,
        "stop_token_ids": [1, 2],
        "min_tokens": 0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "logit_bias": {1: GUARD},
        "bad_words": None,
        "allowed_token_ids": None,
        "structured_outputs": None,
        "min_p": 0.0,
    }
    return SimpleNamespace(**{**values, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0.5},
        {"n": 2},
        {"stop_token_ids": [2]},
        {"stop_token_ids": None},
        {"min_tokens": 3},
        {"repetition_penalty": 1.1},
        {"presence_penalty": 0.1},
        {"logit_bias": None},
        {"logit_bias": {1: GUARD, 5: 2.0}},
        {"bad_words": ["x"]},
        {"allowed_token_ids": [4]},
        {"min_p": 0.1},
    ],
    ids=str,
)
def test_a_row_that_asks_for_what_groups_do_not_do_is_refused(inside, changes) -> None:
    check = inside("palate.engine.vllm.plugin").GroupedRows.validate_params
    check(params_of())
    check(params_of(**changes, extra_args=None))  # no row: not our affair
    with pytest.raises(InvalidInputError, match="is refused"):
        check(params_of(**changes))


def test_the_probe_is_refused_by_name(inside) -> None:
    with pytest.raises(InvalidInputError, match=PROTOCOL):
        inside("palate.engine.vllm.plugin").GroupedRows.validate_params(
            params_of(extra_args=dict(PROBE))
        )


@pytest.mark.parametrize(
    ("chunks", "threshold", "lists", "is_mixed"),
    [
        (False, 0, "raw_logprobs", True),
        (True, 0, "raw_logprobs", False),
        (False, 64, "raw_logprobs", False),
        (False, 0, "processed_logprobs", False),
    ],
)
def test_groups_are_mixed_only_where_a_row_is_what_it_seems(
    inside, chunks: bool, threshold: int, lists: str, is_mixed: bool
) -> None:
    config = SimpleNamespace(
        scheduler_config=SimpleNamespace(
            enable_chunked_prefill=chunks, long_prefill_token_threshold=threshold
        ),
        model_config=SimpleNamespace(logprobs_mode=lists),
    )
    plugin = inside("palate.engine.vllm.plugin").GroupedRows(config, torch.device("cpu"), False)
    plugin._mixer.rows = {k: GroupRow(replace(TAG, row=k), []) for k in range(2)}
    logits = torch.zeros(2, 8)
    logits[:, TAG.abort] += GUARD
    logits[:, 5] = 1.0
    taken = plugin.apply(logits).argmax(dim=1).tolist()
    assert taken == ([5, 5] if is_mixed else [TAG.abort] * 2)
