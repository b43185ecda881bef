"""A run file with a portfolio: grown, resumed, certified, and answered from."""

import json
from pathlib import Path

import numpy as np
import pytest

from palate.build.library import build_library
from palate.build.run_file import RunSettings
from palate.core.errors import CheckFailedError, FormatError, InvalidInputError
from palate.core.settings import load_settings
from palate.library.folder import LibraryFolder
from palate.library.policy import load_policy
from palate.library.portfolio import open_portfolio
from palate.portfolio.record import load_record, verify_record
from palate.portfolio.slack import LEAST_SLACK
from runs import PORTFOLIO, write_portfolio_run


def settings_of(run_file: Path, *overrides: str) -> RunSettings:
    return load_settings(RunSettings, run_file, overrides=overrides)


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A library with its portfolio; tests do not change it."""
    folder = tmp_path_factory.mktemp("grown")
    run_file = write_portfolio_run(folder)
    built = build_library(settings_of(run_file), out=folder / "lib")
    return built, run_file, folder / "lib"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_experts_are_trained_where_the_search_asks_until_the_budget_is_spent(grown):
    built, _, folder = grown
    outcome = built.portfolio
    assert outcome is not None
    assert outcome.stop in ("calls", "noise", "visited")
    assert outcome.policies[:2] == ("short", "long")
    assert outcome.policies[-1] == "base"
    assert len(outcome.policies) <= PORTFOLIO["max_policies"] + 1
    assert set(outcome.experts) == set(LibraryFolder.open(folder).manifest.expert_names)
    assert built.to_json()["portfolio"]["members"] == list(outcome.record.members)
    assert len(outcome.record.members) == 2


def test_the_tables_are_of_the_two_halves_of_the_prompts_and_follow_from_the_policies(grown):
    built, _, folder = grown
    tables = [
        json.loads((folder / name).read_text()) for name in ("payoff.json", "payoff-report.json")
    ]
    for place, name in enumerate(built.portfolio.policies):
        kept = load_policy(folder / "policies" / f"{name}.json").measured
        worth = kept.rewards - 0.1 * kept.kl[:, None]
        halves = [np.array(table["policies"][place]["values"]) for table in tables]
        assert np.allclose(np.mean(halves, axis=0), worth.mean(axis=0))
    base = load_policy(folder / "policies/base.json").measured
    assert np.allclose(base.kl, 0.0, atol=1e-5)
    assert len(base.texts) == 8
    assert all(len(texts) == 2 for texts in base.texts)


def test_the_certificate_can_be_checked_from_the_file_alone(grown, tmp_path):
    built, _, folder = grown
    record = verify_record(folder / "portfolio.json")
    assert record.members == built.portfolio.record.members
    assert record.certified.certificate.confidence == 0.9
    assert record.selection["chosen_on_other_prompts"]
    content = json.loads((folder / "portfolio.json").read_text())
    content["certificate"]["additive_gap"] += 0.1
    (tmp_path / "altered.json").write_text(json.dumps(content))
    with pytest.raises(CheckFailedError):
        verify_record(tmp_path / "altered.json")


def test_a_user_is_served_the_member_worth_most_and_told_what_is_lost(grown):
    _, _, folder = grown
    portfolio = open_portfolio(LibraryFolder.open(folder))
    record = portfolio.record
    lower = record.certified.lower_values
    for share in (0.0, 0.35, 1.0):
        preference = np.array([share, 1.0 - share])
        best = record.members[int(np.argmax(lower @ preference))]
        route = portfolio.router.route(preference)
        assert route.member == best
        assert portfolio.policies[best].coefficients == ({} if best == "base" else {best: 1.0})
        reason = portfolio.reason(route)
        assert repr(best) in reason
        assert f"at most {route.loss:.3f} with this preference" in reason
        assert f"{record.certified.certificate.additive_gap:.3f} with any" in reason
        assert "confidence 90%" in reason


def test_slacks_are_estimated_from_several_answers_and_bound_all_policies(grown):
    built, _, folder = grown
    record = load_record(folder / "portfolio.json")
    certificate = record.certified.certificate
    assert record.terms.slack == "listed"
    assert certificate.kind == "worst-case"
    slacks = dict(zip(record.payoffs.table.policies, record.payoffs.slacks, strict=True))
    assert np.isnan(slacks.pop("base"))
    assert all(slack >= LEAST_SLACK for slack in slacks.values())
    assert record.payoffs.slack_confidence == pytest.approx(0.95)  # half of the doubt at 0.9
    assert "table's slacks" in " ".join(certificate.assumptions)
    assert "nobody loses more than" in built.portfolio.to_json()["statement"]
    kept = load_policy(folder / "policies/short.json").measured.answers
    assert kept.log_ratios.shape == (8, 2)
    assert np.allclose(
        kept.rewards.mean(axis=1), load_policy(folder / "policies/short.json").measured.rewards
    )
    base = load_policy(folder / "policies/base.json").measured.answers
    assert np.allclose(base.log_ratios, 0.0, atol=1e-5)


def test_without_slack_or_with_one_answer_the_listed_policies_are_compared(tmp_path):
    run_file = write_portfolio_run(tmp_path)
    build_library(settings_of(run_file, "portfolio.slack=null"), out=tmp_path / "lib")
    listed = open_portfolio(LibraryFolder.open(tmp_path / "lib"))
    n_policies = listed.record.payoffs.n_policies
    assert listed.record.certified.certificate.kind == "candidate-relative"
    route = listed.router.route(np.array([0.5, 0.5]))
    assert f"relative to the {n_policies} listed policies" in listed.reason(route)
    one = build_library(
        settings_of(run_file, "portfolio.n_answers=1"), out=tmp_path / "lib"
    ).portfolio
    assert one.record.certified.certificate.kind == "candidate-relative"
    assert one.record.payoffs.slacks is None


def test_building_again_trains_and_measures_nothing_and_changes_no_byte(grown):
    _, run_file, folder = grown
    before = contents(folder)
    again = build_library(settings_of(run_file), out=folder)
    assert again.trained == ()
    assert contents(folder) == before


def test_a_search_that_was_cut_short_goes_on_to_the_same_bytes(grown, tmp_path, monkeypatch):
    from palate.build import grow as palm_oracles

    _, _, folder = grown
    whole = contents(folder)
    run_file = write_portfolio_run(tmp_path)
    settings = settings_of(run_file, f"model_name_or_path={folder.parent / 'base'}").model_copy(
        update={"prompts": str(folder.parent / "prompts.jsonl")}
    )
    measured = palm_oracles.Prices._measured
    calls: list[str] = []

    def failing(self, policy):
        calls.append(policy.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measured(self, policy)

    monkeypatch.setattr(palm_oracles.Prices, "_measured", failing)
    with pytest.raises(KeyboardInterrupt):
        build_library(settings, out=tmp_path / "lib")
    assert not (tmp_path / "lib/portfolio.json").exists()
    monkeypatch.setattr(palm_oracles.Prices, "_measured", measured)
    build_library(settings, out=tmp_path / "lib")
    assert contents(tmp_path / "lib") == whole


def test_a_retrained_expert_makes_the_certificate_void(grown, tmp_path):
    run_file = write_portfolio_run(tmp_path)
    build_library(settings_of(run_file), out=tmp_path / "lib")
    build_library(
        settings_of(run_file, "portfolio=null", "training.max_steps=3"), out=tmp_path / "lib"
    )
    with pytest.raises(FormatError, match=r"another expert|is no expert"):
        open_portfolio(LibraryFolder.open(tmp_path / "lib"))


@pytest.mark.parametrize("kind", ["decoding", "soup"])
def test_policies_can_be_made_from_the_objectives_own_experts_alone(tmp_path, kind):
    run_file = write_portfolio_run(tmp_path)
    built = build_library(settings_of(run_file, f"portfolio.oracle={kind}"), out=tmp_path / "lib")
    assert built.trained == ("short", "long")
    assert all(name.startswith(kind) for name in built.portfolio.policies if name != "base")
    portfolio = open_portfolio(LibraryFolder.open(tmp_path / "lib"))
    member = portfolio.router.route(np.array([0.5, 0.5])).member
    assert set(portfolio.policies[member].coefficients) <= {"short", "long"}


def test_soups_are_as_strong_as_the_run_file_says(tmp_path):
    run_file = write_portfolio_run(tmp_path)
    overrides = ("portfolio.oracle=soup", "calibration.strength=1.5")
    built = build_library(settings_of(run_file, *overrides), out=tmp_path / "lib")
    portfolio = open_portfolio(LibraryFolder.open(tmp_path / "lib"))
    assert built.portfolio.policies
    for name, policy in portfolio.policies.items():
        assert sum(policy.coefficients.values()) == pytest.approx(0.0 if name == "base" else 1.5)


def test_the_published_grid_makes_one_policy_per_grid_preference(tmp_path):
    run_file = write_portfolio_run(tmp_path)
    overrides = ("portfolio.search=grid", "portfolio.oracle=soup", "portfolio.delta=0.5")
    built = build_library(
        settings_of(run_file, *overrides, "portfolio.max_policies=5"), out=tmp_path / "lib"
    )
    # ratios 0, 1/2, 1 (0.5 * 2 = 1): (1,1), (1,.5), (1,0), (.5,1), (0,1)
    assert len([name for name in built.portfolio.policies if name != "base"]) == 5
    with pytest.raises(InvalidInputError, match="has 5 preferences, more than"):
        build_library(settings_of(run_file, *overrides), out=tmp_path / "other")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("portfolio.tolerance=0", "'portfolio.tolerance'"),
        ("portfolio.oracle=guess", "'portfolio.oracle'"),
        ("portfolio.size=9", "size=9 members cannot come from max_policies=4"),
        ("portfolio.tolerence=0.1", r"'portfolio\.tolerence' .* unknown"),
    ],
)
def test_a_wrong_section_is_refused_in_one_sentence(tmp_path, override, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        settings_of(write_portfolio_run(tmp_path), override)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("portfolio={max_policies: 1}", "max_policies=1 is below the 2 objectives"),
        ("portfolio={prompts: nowhere.jsonl}", "does not exist"),
        ("portfolio={n_prompts: 2}", "2 prompts"),
    ],
)
def test_a_portfolio_that_cannot_be_measured_is_refused(tmp_path, override, sentence):
    run_file = write_portfolio_run(tmp_path)
    with pytest.raises(InvalidInputError, match=sentence):
        build_library(settings_of(run_file, override), out=tmp_path / "lib")
    assert not (tmp_path / "lib").exists()
