"""Decoding under control: exact in a batch, equal to one pass, uniform at the start."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from palate.core.errors import FormatError, InvalidCoefficientsError
from palate.core.plan import Plan, Pool, Row, parameter_soup_plan
from palate.core.protocols import Request, SamplingParams
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.mixture.controller import PreferenceController, new_controller
from palate.mixture.decode import ControlledDecoding, DecodeSettings, experts_of
from palate.mixture.pooling import Floor, shares_of
from palate.mixture.rollout import CONTROLLER
from palate.mixture.wording import MixtureRequest, Wording
from palate.models.load import Base
from palate.models.trunk import TrunkSettings

ASKED = [
    MixtureRequest("What is rain?", (0.5, 0.5, 0.0, 0.0)),
    MixtureRequest("Why", (0.0, 0.2, 0.3, 0.5)),
    MixtureRequest("Tell me about the old harbour.", (0.25, 0.25, 0.25, 0.25)),
    MixtureRequest("How do bees find home?", (0.0, 0.0, 0.0, 1.0)),
]
HOT = SamplingParams(max_tokens=12)


def requests_for(
    wording: Wording,
    *,
    sampling: SamplingParams = HOT,
    controller: str | None = CONTROLLER,
    **options,
) -> list[Request]:
    return [
        Request(
            wording.full_text(item),
            wording.plan(item, controller=controller, **options),
            replace(sampling, max_tokens=4 + place),
            seed=place,
        )
        for place, item in enumerate(ASKED * 3)
    ]


def engine_with(
    base: Base,
    bank: AdapterBank,
    controller: PreferenceController,
    *,
    settings: DecodeSettings | None = None,
    max_num_seqs: int = 128,
) -> LocalEngine:
    decoding = ControlledDecoding(controller, base, settings=settings)
    return LocalEngine(base, bank, max_num_seqs=max_num_seqs, controllers={CONTROLLER: decoding})


def test_a_batch_that_requests_join_and_leave_answers_each_as_alone(
    base: Base, bank: AdapterBank, controller: PreferenceController, wording: Wording
) -> None:
    requests = requests_for(wording)
    requests.insert(5, Request("What now?", parameter_soup_plan((0.3, 0.2, 0.0, 0.1)), HOT))
    wide = engine_with(base, bank, controller).trace(requests)
    narrow = engine_with(base, bank, controller, max_num_seqs=7).trace(requests)
    alone = [engine_with(base, bank, controller).trace([request])[0] for request in requests]
    for together, crowded, single in zip(wide, narrow, alone, strict=True):
        assert together.completion.tokens == crowded.completion.tokens == single.completion.tokens
        assert np.allclose(together.shares, single.shares, atol=1e-5)
        assert np.allclose(crowded.shares, single.shares, atol=1e-5)


def test_shares_of_decoding_equal_one_pass_over_the_whole_text(
    base: Base, bank: AdapterBank, controller: PreferenceController, wording: Wording
) -> None:
    requests = requests_for(wording)
    for request, found in zip(
        requests, engine_with(base, bank, controller).trace(requests), strict=True
    ):
        context = request.plan.pool.context
        tokens = found.completion.tokens
        strengths = torch.zeros(1, 4)
        experts = experts_of(request.plan)
        strengths[0, experts] = torch.tensor(request.plan.pool.strengths)
        ids = torch.tensor([[*context, *tokens[:-1]]])
        scores, _ = controller(ids, torch.ones_like(ids), strengths)
        after = scores[0, len(context) - 1 :]
        expected = shares_of(after, (strengths > 0).expand_as(after)).detach()
        assert np.allclose(found.shares, expected[:, experts], atol=1e-5)


def test_the_shares_depend_on_prompt_and_place(
    base: Base, bank: AdapterBank, controller: PreferenceController, wording: Wording
) -> None:
    found = engine_with(base, bank, controller).trace(requests_for(wording))
    shares = np.concatenate([one.shares[:, 0] for one in found if one.shares.shape[1] == 2])
    assert shares.std() > 0.05


def test_a_head_of_zeros_is_the_uniform_mixture_token_for_token(
    base: Base, bank: AdapterBank, wording: Wording
) -> None:
    fresh = new_controller(
        TrunkSettings(hidden=16, layers=1, heads=2, feed_forward=24),
        experts=bank.names,
        n_vocab=len(base.tokenizer),
        tokenizer_fingerprint=base.tokenizer_fingerprint,
        seed=3,
    )
    engine = engine_with(base, bank, fresh)
    controlled = engine.generate(requests_for(wording))
    fixed = engine.generate(requests_for(wording, controller=None))
    assert [c.tokens for c in controlled] == [c.tokens for c in fixed]
    for one, other in zip(controlled, fixed, strict=True):
        assert np.allclose(one.log_probs, other.log_probs, atol=1e-5)  # a third has no exact binary


def test_a_floor_lifts_an_expert_that_nobody_asked_for(
    base: Base, bank: AdapterBank, controller: PreferenceController, wording: Wording
) -> None:
    settings = DecodeSettings(floor=Floor(2, 0.2))
    engine = engine_with(base, bank, controller, settings=settings)
    for request, found in zip(
        requests_for(wording, extra=(2,)),
        engine.trace(requests_for(wording, extra=(2,))),
        strict=True,
    ):
        place = experts_of(request.plan).index(2)
        is_wanted = request.plan.pool.strengths[place] > 0
        floor = found.shares[:, place]
        assert np.all(floor >= 0.2 - 1e-6) if is_wanted else np.allclose(floor, 0.2, atol=1e-6)
        assert np.allclose(found.shares.sum(axis=1), 1.0, atol=1e-6)
    with pytest.raises(InvalidCoefficientsError, match="no row"):
        engine.generate(requests_for(wording))


def test_a_blended_row_is_its_expert_and_a_share_of_what_else_is_wanted(base: Base) -> None:
    wording = Wording(base, ("be kind", "be short", "be exact", ""), "none", blend=0.5)
    plan = wording.plan(
        MixtureRequest("hi", (0.5, 0.5, 0.0, 0.0)), controller=CONTROLLER, extra=(3,)
    )
    assert [row.coefficients for row in plan.rows] == [
        (1.0, 0.5, 0.0, 0.0),
        (0.5, 1.0, 0.0, 0.0),
        (0.0, 0.0, 0.0, 1.0),  # a floor's expert stays itself
    ]
    assert experts_of(plan) == [0, 1, 3]


def test_what_is_not_one_expert_a_row_is_refused() -> None:
    pool = Pool("linear", controller="c")
    with pytest.raises(InvalidCoefficientsError, match="not led by one expert"):
        experts_of(Plan((Row((0.5, 0.5)), Row((0.0, 1.0))), pool))
    with pytest.raises(InvalidCoefficientsError, match="two rows"):
        experts_of(Plan((Row((1.0, 0.0)), Row((1.0, 0.0))), pool))


def test_a_controller_of_another_tokenizer_is_refused(base: Base, bank: AdapterBank) -> None:
    other = new_controller(
        TrunkSettings(hidden=8, layers=1, heads=2, feed_forward=8),
        experts=bank.names,
        n_vocab=10,
        tokenizer_fingerprint="0" * 64,
        seed=0,
    )
    with pytest.raises(FormatError, match=r"controller.*tiny"):
        ControlledDecoding(other, base)
