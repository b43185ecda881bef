import json

import numpy as np
import pytest

from palate.core.errors import CheckFailedError
from research.soup.normalised import margins
from research.soup.token_trees import BETA, votes, yardstick
from research.soup.trees import answer_sums, optimal_policy, soup_policy, tilts
from research.soup.yardstick import (
    comparisons,
    make_bench,
    population_prior,
    run_yardstick,
)
from research.soup.yardstick_report import RECORDED, Row, make_report


@pytest.fixture(scope="module")
def bench():
    return make_bench(yardstick(1, n_training=8))


def test_the_base_model_recovers_nothing_and_a_bespoke_policy_everything(bench):
    assert bench.recovered(bench.world.reference, 0) == pytest.approx(0.0, abs=1e-9)
    returns = bench.world.attributes @ bench.world.users[0]
    best = optimal_policy(bench.world.reference, returns, beta=BETA)
    assert bench.recovered(best, 0) == pytest.approx(100.0)


def test_the_fast_soup_is_the_pooled_one(bench):
    lam = np.array([0.7, -0.3, 1.1])
    slow = soup_policy(bench.world.reference, bench.experts[:3], lam)
    for own, other in zip(bench.soup(lam), slow, strict=True):
        assert own == pytest.approx(other, abs=1e-10)


def test_comparisons_have_the_margins_of_the_soups_log_ratio(bench):
    said = votes(bench.world, user=1)
    lam = np.array([0.7, -0.3, 1.1])
    found, _ = margins(lam, comparisons(bench.first(3), bench, said), scale=1.0)
    ratio = answer_sums(tilts(bench.soup(lam), reference=bench.world.reference))
    assert found == pytest.approx(ratio[said.first] - ratio[said.second], abs=1e-10)


def test_the_population_prior_is_a_second_moment(bench):
    prior = population_prior(bench, n_experts=4)
    assert prior.mean.tolist() == [0, 0, 0, 0]
    assert np.linalg.eigvalsh(prior.covariance).min() >= 1e-4 - 1e-12


def _rows(shift=0.0):
    ways = {
        "prior, gated": ((15, 100), (15, 300)),
        "ridge, gated": ((7, 30), (7, 100), (7, 300), (15, 30), (15, 100), (15, 300)),
        "reward space, corrected": ((4, 0), (7, 0), (15, 0), (30, 0)),
        "ridge, stage 1": ((7, 30),),
        "ridge, stage 2": ((7, 30),),
    }
    cells = dict(RECORDED)
    for method, places in ways.items():
        for size, n in places:
            cells[method, size, n] = 100.0 if "corrected" in method else 90.0
    for seed in (0, 1):
        for (method, size, n), value in cells.items():
            low = -50.0 if method == "no budget" else value
            yield Row(seed, method, size, n, value + shift)
            yield Row(seed, method, size, n, low + shift)
            yield Row(seed, method, size, n, 2 * value - low + shift)


def test_a_table_as_recorded_passes_and_a_shifted_one_fails_by_name(bench):
    ranks = [{0.9: 3, 0.99: 7, 0.999: 14}] * 2
    good = make_report(list(_rows()), ranks)
    assert good.failures == ()
    assert good.largest_difference() == pytest.approx(0.0, abs=1e-9)
    good.require_met()
    bad = make_report(list(_rows(shift=2.0)), ranks)
    assert bad.largest_difference() == pytest.approx(2.0)
    with pytest.raises(CheckFailedError, match="Q space with 4 experts"):
        bad.require_met()
    assert json.loads(json.dumps(good.to_json()))["failures"] == []
    page = good.to_markdown()
    assert "| ridge | 15 | 100 | 6 | 82.0 [" in page
    assert "All checks hold." in page


def test_orderings_are_checked_whatever_the_numbers():
    rows = [
        Row(row.seed, row.method, row.n_experts, row.n_comparisons, 10.0)
        if row.method == "prior" and row.n_comparisons == 10
        else row
        for row in _rows()
    ]
    report = make_report(rows, [{0.9: 3}])
    assert any("is not above ('ridge', 7, 10)" in sentence for sentence in report.failures)


@pytest.mark.study
@pytest.mark.slow
def test_the_recorded_table_is_reproduced(tmp_path):
    report = run_yardstick(out=tmp_path / "page.md")
    report.require_met()
    assert report.largest_difference() < 0.6
    assert "All checks hold." in (tmp_path / "page.md").read_text()
