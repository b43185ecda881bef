"""Groups of rows are mixed as in this process, or ended: never left to themselves."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan, Pool, Row
from palate.core.protocols import SamplingParams
from palate.engine.pool import RowMap, pool_log_probs
from palate.engine.sample import sample_tokens
from palate.engine.vllm.groups import (
    GUARD,
    PROBE,
    PROTOCOL,
    GroupMixer,
    GroupRow,
    GroupTag,
    pool_rows,
    sample_token,
)

N_VOCAB = 20
ABORT = 19
TAG = GroupTag("g", 0, (0.2, 0.5, 0.3), "linear", ABORT)


def logits_of(n_rows: int, *, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(n_rows, N_VOCAB, generator=torch.Generator().manual_seed(seed))


def guarded(mixer: GroupMixer, logits: torch.Tensor) -> torch.Tensor:
    """As they come to the plugin: every row of a group asked for its guard."""
    found = logits.clone()
    for place, row in mixer.rows.items():
        found[place, row.tag.abort] += GUARD
    return found


def taken(mixer: GroupMixer, logits: torch.Tensor) -> list[int]:
    found = mixer.apply(guarded(mixer, logits))
    assert bool((found.isfinite().sum(dim=1) == 1).all())  # one token is left to each row
    return found.argmax(dim=1).tolist()


def rows_of(tag: GroupTag, *, n_tokens: int = 0) -> dict[int, GroupRow]:
    return {k: GroupRow(replace(tag, row=k), [5] * n_tokens) for k in range(len(tag.shares))}


@pytest.mark.parametrize(
    ("kind", "shares"), [("linear", (0.2, 0.5, 0.3)), ("log_linear", (1.4, -0.6, 0.2))]
)
def test_pools_and_draws_are_those_of_the_engine_in_this_process(kind, shares) -> None:
    plan = Plan(tuple(Row((float(k),)) for k in range(3)), Pool(kind, shares))
    uniforms = np.random.default_rng(0).random(50)
    for place, temperature in itertools.product(range(25), (0.0, 0.7)):
        logits = logits_of(3, seed=place)
        tag = GroupTag("g", 0, shares, kind, ABORT, temperature, tuple(uniforms))
        pooled = pool_log_probs(logits, RowMap.of([plan], device=logits.device))
        assert torch.allclose(pool_rows(logits, tag), pooled[0], atol=1e-5)
        own = sample_tokens(
            pooled,
            sampling=[SamplingParams(temperature=temperature)],
            prompts=[()],
            answers=[()],
            uniform=torch.tensor([uniforms[place]]),
        )
        assert sample_token(pooled[0], tag, place=place) == int(own[0])


def test_all_rows_of_a_whole_group_take_the_token_of_the_pool() -> None:
    mixer = GroupMixer()
    mixer.rows = rows_of(TAG)
    logits = torch.full((3, N_VOCAB), -10.0)
    logits[0, 1], logits[1, 2], logits[2, 3] = 10.0, 10.0, 10.0  # each row is sure of its own
    assert taken(mixer, logits) == [2, 2, 2]  # the row with the largest share
    assert not mixer.broken


def test_the_guard_is_taken_back_and_alone_decides_without_the_plugin() -> None:
    mixer = GroupMixer()
    mixer.rows = rows_of(TAG)
    logits = logits_of(3)
    assert guarded(mixer, logits).argmax(dim=1).tolist() == [ABORT] * 3
    expected = pool_rows(logits, TAG).argmax()
    assert expected != ABORT
    assert taken(mixer, logits) == [int(expected)] * 3


def test_rows_without_a_group_are_left_alone() -> None:
    mixer = GroupMixer()
    mixer.rows = {k + 1: row for k, row in rows_of(TAG).items()}
    logits = logits_of(5)
    found = mixer.apply(logits.clone())
    assert torch.equal(found[0], logits[0])
    assert torch.equal(found[4], logits[4])


@pytest.mark.parametrize("missing", range(3))
def test_a_group_with_a_missing_row_is_ended_and_stays_so(missing: int) -> None:
    heard: list[str] = []
    mixer = GroupMixer(warn=heard.append)
    mixer.rows = rows_of(TAG)
    late = mixer.rows.pop(missing)
    found = mixer.apply(logits_of(3))
    others = [k for k in range(3) if k != missing]
    assert found[others].argmax(dim=1).tolist() == [ABORT, ABORT]
    mixer.rows = {missing: late}  # it comes when the others are gone
    assert mixer.apply(logits_of(3))[missing].argmax() == ABORT
    mixer.rows = rows_of(TAG)  # and even a whole group is not taken up again
    assert taken(mixer, logits_of(3)) == [ABORT] * 3
    assert len(heard) == 1
    assert "only" in heard[0]


def test_rows_at_different_places_are_ended() -> None:
    mixer = GroupMixer()
    mixer.rows = rows_of(TAG, n_tokens=4)
    mixer.rows[1] = replace(mixer.rows[1], tokens=[5] * 3)
    assert taken(mixer, logits_of(3)) == [ABORT] * 3


def test_rows_that_disagree_or_come_twice_are_ended() -> None:
    for changed in (replace(TAG, row=1, shares=(0.5, 0.2, 0.3)), replace(TAG, row=0)):
        mixer = GroupMixer()
        mixer.rows = rows_of(TAG)
        mixer.rows[1] = GroupRow(changed, [])
        assert taken(mixer, logits_of(3)) == [ABORT] * 3


def test_where_groups_cannot_be_mixed_all_are_ended() -> None:
    mixer = GroupMixer(refusal="prompts are read in chunks")
    mixer.rows = rows_of(TAG)
    assert taken(mixer, logits_of(3)) == [ABORT] * 3


def test_a_group_whose_pool_is_not_finite_is_ended() -> None:
    mixer = GroupMixer()
    mixer.rows = rows_of(TAG)
    logits = logits_of(3)
    logits[1, 4] = torch.nan
    assert taken(mixer, logits) == [ABORT] * 3


def test_a_group_without_numbers_left_is_ended() -> None:
    mixer = GroupMixer()
    mixer.rows = rows_of(replace(TAG, temperature=1.0, uniforms=(0.1, 0.2)), n_tokens=2)
    assert taken(mixer, logits_of(3)) == [ABORT] * 3


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    order=st.randoms(use_true_random=False),
)
def test_groups_in_one_batch_do_not_know_each_other(sizes, order) -> None:
    places = list(range(sum(sizes)))
    order.shuffle(places)
    logits, mixer, alone = logits_of(len(places)), GroupMixer(), []
    for group, size in enumerate(sizes):
        tag = GroupTag(str(group), 0, (1.0 / size,) * size, "linear", ABORT)
        mine = [places.pop() for _ in range(size)]
        for k, place in enumerate(mine):
            mixer.rows[place] = GroupRow(replace(tag, row=k), [])
        own = GroupMixer()
        own.rows = rows_of(tag)
        alone.append((mine, taken(own, logits[mine])))
    together = taken(mixer, logits)
    for mine, tokens in alone:
        assert [together[place] for place in mine] == tokens


def test_tags_survive_the_wire_and_other_requests_have_none() -> None:
    tag = replace(TAG, row=2, temperature=0.5, uniforms=(0.25, 0.1))
    assert GroupTag.from_xargs(tag.to_xargs()) == tag
    assert GroupTag.from_xargs(None) is None
    assert GroupTag.from_xargs({"other": 1}) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"palate_row": 3}, "palate_row"),
        ({"palate_shares": [0.5, -0.5, 1.0]}, "negative"),
        ({"palate_pool": "mean"}, "linear or log_linear"),
        ({"palate_temperature": 1.0}, "palate_uniforms"),
        ({"palate_temperature": -1.0}, "palate_temperature"),
        ({"palate_group": ""}, "name"),
        ({"palate_abort": None}, "garbles"),
    ],
)
def test_garbled_tags_are_refused(change, why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        GroupTag.from_xargs(TAG.to_xargs() | change)
    with pytest.raises(InvalidInputError, match="lacks"):
        GroupTag.from_xargs({"palate_group": "g"})


def test_a_probe_is_refused_with_the_protocols_name() -> None:
    with pytest.raises(InvalidInputError, match=PROTOCOL):
        GroupTag.from_xargs(PROBE)
