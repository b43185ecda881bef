"""The plugin inside a real vLLM: groups are mixed as in this process, and split ones are ended.

Needs the server that `benchmarks/vllm_engine/README.md` starts (32 seats):

    PALATE_VLLM_URL      its address, such as http://127.0.0.1:8177/v1
    PALATE_VLLM_WORK     the folder that prepare.py wrote
"""

import os
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine_battery import generate_reported
from palate.core.errors import ProviderError
from palate.core.plan import member_plan, output_soup_plan
from palate.core.protocols import Request, SamplingParams
from palate.engine.openai.connection import chunk_of
from palate.engine.vllm.client import RowRequest, VllmClient, VllmSettings
from palate.engine.vllm.groups import GUARD, GroupTag
from research.mixture.plans import mixture_plan
from research.serving.engines_compare import OpenedVllm, open_vllm

URL = os.environ.get("PALATE_VLLM_URL", "")
WORK = Path(os.environ.get("PALATE_VLLM_WORK", "."))
ABORT, END = 1, 2  # of the tokeniser of stories260K: what begins a text, and what ends it
PROMPT = (1, 403, 407, 261)
SEATS = 32
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not URL, reason="PALATE_VLLM_URL names no server; benchmarks/vllm_engine/README.md does"
    ),
]


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenedVllm]:
    settings = VllmSettings(
        url=URL,
        adapters_folder=tmp_path_factory.mktemp("adapters"),
        top_k=512,
        max_top_k=512,
        max_lora_rank=32,
        max_concurrent=8,
        n_retries=0,
        pools="server",
        draws="own",
        server_experts=WORK / "wide/experts",
    )
    opened = open_vllm(WORK / "library", settings)
    yield opened
    opened.engine.close()


@pytest.fixture(scope="module")
def client(vllm: OpenedVllm) -> VllmClient:
    return vllm.engine.context.client


def row_of(tag: GroupTag, *, max_tokens: int = 12, temperature: float = 0.0) -> RowRequest:
    return RowRequest(
        "bright",
        PROMPT,
        SamplingParams(temperature=temperature, max_tokens=max_tokens),
        seed=0,
        stop_ids=[ABORT, END],
        n_top=1,
        bias={tag.abort: GUARD},
        xargs=tag.to_xargs(),
    )


def group_of(n_rows: int) -> list[GroupTag]:
    tag = GroupTag(uuid.uuid4().hex, 0, (1.0 / n_rows,) * n_rows, "linear", ABORT)
    return [replace(tag, row=row) for row in range(n_rows)]


def tokens_of(client: VllmClient, rows: list[RowRequest]) -> list[list[int]]:
    """All rows' tokens, read at the same time."""
    found: list[list[int]] = [[] for _ in rows]

    def read(place: int, row: RowRequest) -> None:
        for chunk in map(chunk_of, client.stream(row)):
            found[place] += chunk.tokens

    threads = [threading.Thread(target=read, args=each) for each in enumerate(rows)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_groups_give_the_tokens_and_log_probs_of_this_process(vllm: OpenedVllm) -> None:
    plans = [
        mixture_plan(experts=(0, 1, 2), n_experts=3, shares=(0.5, 0.3, 0.2)),
        output_soup_plan((0.5, -0.4, 0.7)),
        member_plan(index=1, n_experts=3),
    ]
    requests = [
        Request(
            "Tom and his dog", plan, SamplingParams(temperature=heat, max_tokens=24), seed=place
        )
        for place, plan in enumerate(plans)
        for heat in (0.0, 1.0)
    ]
    served = generate_reported(vllm.engine, requests)
    for one, own in zip(served, vllm.opened.engine.generate(requests), strict=True):
        assert one.completion.tokens == own.tokens
        assert np.allclose(one.completion.log_probs, own.log_probs, atol=1e-3)
        assert one.report.n_calls <= 4


def test_a_group_with_more_rows_than_seats_is_split_by_the_scheduler_and_ended(
    client: VllmClient,
) -> None:
    found = tokens_of(client, [row_of(tag) for tag in group_of(SEATS + 4)])
    assert found == [[ABORT]] * (SEATS + 4)


def test_a_whole_group_of_as_many_rows_as_seats_is_mixed(client: VllmClient) -> None:
    found = tokens_of(client, [row_of(tag) for tag in group_of(SEATS)])
    alone = tokens_of(client, [row_of(tag) for tag in group_of(1)])
    assert ABORT not in alone[0]
    assert found == alone * SEATS  # rows of one model: their pool is that model


def test_rows_whose_partner_never_comes_are_ended_and_so_is_a_late_one(client: VllmClient) -> None:
    tags = group_of(3)
    assert tokens_of(client, [row_of(tag) for tag in tags[:2]]) == [[ABORT]] * 2
    assert tokens_of(client, [row_of(tags[2])]) == [[ABORT]]


def test_when_one_row_leaves_the_others_are_ended(client: VllmClient) -> None:
    first, second = group_of(2)
    found = tokens_of(client, [row_of(first, max_tokens=4), row_of(second, max_tokens=12)])
    assert len(found[0]) == 4
    assert found[1] == [*found[0], ABORT]


def test_groups_and_other_requests_share_a_batch_unharmed(client: VllmClient) -> None:
    plain = RowRequest("short", PROMPT, SamplingParams(temperature=0.0, max_tokens=12), 0, [END], 1)
    alone = tokens_of(client, [plain])
    rows = [row_of(tag) for size in (2, 3, 4) for tag in group_of(size)]
    found = tokens_of(client, [*rows, plain, *rows[:0]])
    assert found[-1] == alone[0]
    assert all(tokens == found[0] for tokens in found[:-1])
    assert ABORT not in found[0]


def test_a_row_that_wants_to_draw_by_itself_is_refused(client: VllmClient) -> None:
    with pytest.raises(ProviderError, match="temperature must be 0"):
        list(client.stream(row_of(group_of(1)[0], temperature=0.5)))
