"""AlpacaEval's annotations: what the verdicts of its judges say."""

import json

import pytest

from palate.core.errors import FormatError, InvalidInputError
from research.statistics.alpaca import read_rates


def saved(tmp_path, content, name="file.json"):
    path = tmp_path / name
    path.write_text(json.dumps(content))
    return path


def entry(number, preference, *, ours="short", theirs="long text", **more):
    return {
        "instruction": f"ask {number}",
        "output_1": theirs,
        "generator_1": "reference",
        "output_2": ours,
        "generator_2": "palate",
        "annotator": "judge",
        "preference": preference,
        **more,
    }


def test_rates_are_counted_by_hand(tmp_path):
    # two won (2 and 1.9), one lost, one new tie, one old tie, one failed
    preferences = [2.0, 1.9, 1.0, 1.5, 0, None]
    found = read_rates(saved(tmp_path, [entry(k, p) for k, p in enumerate(preferences)]))
    assert (found.generator, found.rival, found.annotator) == ("palate", "reference", "judge")
    assert found.n_failed == 1
    assert found.win_rate.n == 5
    assert found.win_rate.estimate == pytest.approx((1.0 + 0.9 + 0.0 + 0.5 + 0.5) / 5)
    rates = found.rates
    assert (rates.n_wins, rates.n_ties, rates.n_losses) == (2, 2, 1)
    assert rates.ties_out.estimate == pytest.approx(2 / 3)
    assert rates.ties_half.estimate == pytest.approx(3 / 5)
    assert rates.ties_lost.estimate == pytest.approx(2 / 5)
    assert found.win_rate.low < found.win_rate.estimate < found.win_rate.high
    content = found.to_json()
    assert content["n"] == 5
    assert content["length_controlled"]["low"] <= content["length_controlled"]["high"]


def test_the_first_output_may_be_ours_and_then_the_verdicts_turn_round(tmp_path):
    path = saved(tmp_path, [entry(k, p) for k, p in enumerate([2, 2, 1.25])])
    assert read_rates(path, generator="reference").win_rate.estimate == pytest.approx(0.25)
    assert read_rates(path).win_rate.estimate == pytest.approx(0.75)


def test_a_judge_that_likes_length_is_seen_through(tmp_path):
    # ours wins where it is longer and loses where it is shorter: nothing is left at equal length
    pairs = [(2.0, "x" * 90, "x"), (1.0, "x", "x" * 90)] * 20
    rows = [entry(k, p, ours=mine, theirs=other) for k, (p, mine, other) in enumerate(pairs)]
    found = read_rates(saved(tmp_path, rows))
    assert found.controlled.length_effect > 1.0
    assert found.controlled.rate.estimate == pytest.approx(0.5, abs=1e-6)


def test_several_judgments_of_one_instruction_are_one_cluster(tmp_path):
    rows = [entry(k // 3, p) for k, p in enumerate([2, 2, 2, 1, 1, 1, 2, 2, 2, 1, 1, 1])]
    found = read_rates(saved(tmp_path, rows))
    assert (found.win_rate.n, found.win_rate.n_clusters) == (12, 4)


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ([], InvalidInputError, "is empty"),
        ({"instruction": "a"}, FormatError, "no list of objects"),
        ([entry(0, 2), entry(1, 1, generator_2="other")], InvalidInputError, "say whose"),
        ([entry(0, 2), entry(0, 1)], InvalidInputError, "needs two"),
        ([entry(0, 2), entry(1, 3)], FormatError, "preference 3"),
        ([entry(0, 2), entry(1, "second")], FormatError, "'second'"),
        ([entry(0, 2), entry(1, 2, output_1=None)], FormatError, "lacks"),
    ],
)
def test_files_that_are_no_annotations_are_refused_in_one_sentence(tmp_path, content, error, words):
    with pytest.raises(error, match=words) as caught:
        read_rates(saved(tmp_path, content))
    assert str(caught.value).endswith(".")


def test_a_generator_that_wrote_nothing_is_named(tmp_path):
    with pytest.raises(InvalidInputError, match="'nobody'"):
        read_rates(saved(tmp_path, [entry(0, 2), entry(1, 2)]), generator="nobody")
