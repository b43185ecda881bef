"""Oracles with models: how policies are named and made, and what they are measured to be worth."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from palate.build.grow import ModelOracle, Prices, maker, preference_name
from palate.build.payoff_job import PayoffEstimator
from palate.build.run_file import PortfolioSettings
from palate.core.errors import FormatError, InvalidInputError
from palate.core.plan import Plan, Pool, Row, member_plan, parameter_soup_plan, reference_plan
from palate.core.protocols import Request, SamplingParams
from palate.core.seeds import derive_seed
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.engine.logprobs import Scored, answer_log_probs
from palate.library.folder import LibraryFolder
from palate.library.policy import Policy, load_policy
from palate.models.chat import encode_prompt
from palate.models.load import load_base

PROMPTS = ("one fish", "two fish", "red fish", "blue fish")


@dataclass(frozen=True)
class Lengths:
    """Rewards that can be computed by hand."""

    objectives: tuple[str, ...] = ("kind", "short", "plain")

    def score(self, prompts, answers):
        del prompts
        share = np.array([min(len(text), 40) / 40 for text in answers])
        return np.stack([share, 1 - share, np.full(len(answers), 0.5)], axis=1)


@dataclass
class FakeSettings:
    objective_names: tuple[str, ...] = ("kind", "short", "plain")

    class training:  # noqa: N801
        beta = 0.2

    class calibration:  # noqa: N801
        strength = None


class FakeBuilder:
    """A library whose experts are there; what is asked to be trained is written down."""

    def __init__(self, folder: Path) -> None:
        self.library = LibraryFolder.open(folder)
        self.base = load_base(folder.parent / "base")
        self.settings = FakeSettings()
        self.asked: list[str] = []

    def make(self, anchor, *, title):
        del title
        self.asked.append(anchor.name)


@pytest.fixture(scope="module")
def builder(tiny_library: Path) -> FakeBuilder:
    return FakeBuilder(tiny_library)


def estimator_of(builder, **changes):
    return PayoffEstimator(
        **{
            "base": builder.base,
            "prompts": PROMPTS,
            "reward": Lengths(),
            "reward_key": "lengths",
            "n_answers": 3,
            "max_tokens": 6,
            "seed": 1,
            **changes,
        }
    )


def test_each_way_is_its_own_plan():
    experts = ("kind", "short", "plain")
    half = {"kind": 0.5, "plain": 0.5}
    assert Policy("base", "base", None, {}).plan(experts) == reference_plan(n_experts=3)
    assert Policy("short", "expert", None, {"short": 1.0}).plan(experts) == member_plan(
        index=1, n_experts=3
    )
    assert Policy("s", "soup", None, half).plan(experts) == parameter_soup_plan((0.5, 0, 0.5))
    rows = (Row((1.0, 0.0, 0.0)), Row((0.0, 0.0, 1.0)))
    assert Policy("d", "decoding", None, half).plan(experts) == Plan(
        rows, Pool("log_linear", (0.5, 0.5))
    )


def test_a_preference_that_has_an_expert_is_that_expert_and_others_are_named_by_shares(builder):
    make = maker("trained", builder)
    assert make(np.array([0.0, 1.0, 0.0])).name == "short"
    policy = make(np.array([0.5, 0.25, 0.25]))
    name = "kind-50_short-25_plain-25"
    assert policy.name == name
    assert policy.preference == (0.5, 0.25, 0.25)
    assert policy.coefficients == {name: 1.0}
    assert builder.asked[-2:] == ["short", name]
    names = ("concise", "expert", "friendly")
    assert preference_name(np.array([0.5, 0.0, 0.5]), names) == "concise-50_friendly-50"
    assert preference_name(np.array([0.479, 0.182, 0.339]), names) == (
        "concise-47.9_expert-18.2_friendly-33.9"
    )
    assert preference_name(np.array([0.0, 1.0, 0.0]), names) == "expert-100"
    long = tuple(f"a_long_objective_{k}" for k in range(3))
    assert preference_name(np.array([1 / 3, 1 / 3, 1 / 3]), long) == "w-333-333-333"


@pytest.mark.parametrize("kind", ["decoding", "soup"])
def test_combined_policies_take_the_shares_as_coefficients_of_the_objectives_experts(builder, kind):
    policy = maker(kind, builder)(np.array([0.75, 0.0, 0.25]))
    assert policy.method == kind
    assert policy.coefficients == {"kind": 0.75, "plain": 0.25}


def test_an_unknown_oracle_is_refused():
    with pytest.raises(InvalidInputError, match=r"'oracle' in run\.yaml .*trained.*decoding.*soup"):
        PortfolioSettings.checked({"oracle": "magic"}, source="run.yaml")


def test_rewards_are_means_over_answers_and_kl_agrees_with_log_ratios(builder):
    folders = builder.library.expert_folders()
    bank = AdapterBank.load(builder.base, {"kind": folders["kind"]})
    estimator = estimator_of(builder, n_answers=30)
    plan = member_plan(index=0, n_experts=1)
    found = estimator.measure(plan, bank)
    assert found.rewards.shape == (4, 3)
    by_hand = Lengths().score([], found.texts[2]).mean(axis=0)
    np.testing.assert_allclose(found.rewards[2], by_hand)
    assert np.all(found.kl > 0)
    # the mean log-ratio of drawn answers estimates the same KL, with more spread
    answers = LocalEngine(builder.base, bank).generate(
        [
            Request(p, plan, SamplingParams(max_tokens=6), seed=derive_seed(1, "meter", p, k))
            for p in PROMPTS
            for k in range(30)
        ]
    )
    items = [Scored(tuple(encode_prompt(builder.base, a.prompt)), a.tokens) for a in answers]
    own, other = (
        torch.stack(
            [
                x.sum()
                for x in answer_log_probs(builder.base, bank, plans=[p] * len(items), items=items)
            ]
        ).double()
        for p in (plan, reference_plan(n_experts=1))
    )
    ratios = (own - other).numpy()
    error = ratios.std() / np.sqrt(len(ratios))
    assert abs(ratios.mean() - found.kl.mean()) < 4 * error
    bank.close()


def test_the_base_costs_nothing_and_a_policy_is_measured_once(builder, tmp_path):
    prices = Prices(builder, estimator_of(builder), tmp_path)
    base = prices.of(Policy("base", "base", None, {}))
    np.testing.assert_allclose(base.kl, 0.0, atol=1e-6)
    policy = Policy("short", "expert", (0.0, 1.0, 0.0), {"short": 1.0})
    first = prices.of(policy)
    kept = load_policy(tmp_path / "short.json")
    assert kept.policy == policy
    assert kept.experts == {"short": "short"}
    again = Prices(builder, estimator_of(builder), tmp_path).of(policy)
    assert np.array_equal(again.rewards, first.rewards)
    assert again.texts == first.texts
    other = Prices(builder, estimator_of(builder, seed=2), tmp_path).of(policy)
    assert other.texts != first.texts


def test_a_garbled_policy_file_is_refused(builder, tmp_path):
    prices = Prices(builder, estimator_of(builder), tmp_path)
    policy = Policy("short", "expert", (0.0, 1.0, 0.0), {"short": 1.0})
    prices.of(policy)
    content = json.loads((tmp_path / "short.json").read_text())
    del content["kl"]
    (tmp_path / "short.json").write_text(json.dumps(content))
    with pytest.raises(FormatError, match="remove it and measure again"):
        prices.of(policy)


@pytest.mark.parametrize(("given", "beta"), [(None, 0.2), (0.01, 0.01)])
def test_payoffs_are_rewards_less_the_price_of_kl_on_the_chosen_prompts(
    builder, tmp_path, given, beta
):
    prices = Prices(builder, estimator_of(builder), tmp_path)
    oracle = ModelOracle(maker("soup", builder), prices, part=np.array([0, 2]), beta=given)
    names = [oracle.policy(np.array(w)) for w in ([1.0, 0, 0], [0.5, 0.5, 0])]
    table = oracle.payoffs(names).table
    assert table.beta == beta
    measured = [prices.of(oracle.policies[name]) for name in names]
    expected = [m.rewards[[0, 2]].mean(axis=0) - beta * m.kl[[0, 2]].mean() for m in measured]
    np.testing.assert_allclose(table.values, expected)
    np.testing.assert_allclose(table.preferences, [[1, 0, 0], [0.5, 0.5, 0]])


def test_preferences_that_read_the_same_are_policies_of_their_own(builder, tmp_path):
    oracle = ModelOracle(maker("soup", builder), Prices(builder, estimator_of(builder), tmp_path))
    near = [np.array([0.5, 0.25 + gap, 0.25 - gap]) for gap in (0.0, 1e-4, 2e-4)]
    names = [oracle.policy(preference) for preference in (*near, near[1])]
    assert names == [f"soup-kind-50_short-25_plain-25{end}" for end in ("", "x", "xx", "x")]
    wanted = np.array([oracle.policies[name].preference for name in names[:3]])
    assert np.array_equal(wanted, near)


def test_measurements_in_another_dtype_are_not_mixed_in(builder):
    whole = estimator_of(builder)
    half = SimpleNamespace(fingerprint=builder.base.fingerprint, dtype="bfloat16")
    assert estimator_of(builder, base=half).fingerprint != whole.fingerprint
    same = SimpleNamespace(fingerprint=builder.base.fingerprint, dtype="float32")
    assert estimator_of(builder, base=same).fingerprint == whole.fingerprint


def test_too_few_prompts_are_refused(builder):
    with pytest.raises(InvalidInputError, match="at least four prompts"):
        estimator_of(builder, prompts=PROMPTS[:3])
