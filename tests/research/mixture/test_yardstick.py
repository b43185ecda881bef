"""The yardstick's report: targets are checked, and a missed one fails."""

from dataclasses import replace

import pytest

from palate.core.errors import CheckFailedError
from research.mixture import yardstick as mixture_yardstick
from research.mixture.yardstick import EXPECTED, YardstickReport


def report(*, reached=0.79, **changes) -> YardstickReport:
    row = {**EXPECTED, "rebel_20": 0.74, "rebel_100": 0.748, "rebel_300": 0.749}
    row |= {"rebel_entropy": 0.02, **changes}
    gains = {u: (row[f"rebel_{u}"] - row["uniform"]) / 0.117 for u in (20, 100, 300)}
    halves = {"uniform": 0.45, "static": 0.45, "optimal": 0.8, "rebel_100": reached}
    failures = mixture_yardstick._failures([row], row, gains)
    failures += mixture_yardstick._halves_failures(halves)
    return YardstickReport((row,), row, gains, halves, failures)


def test_met_targets_pass_and_are_said_to_be_met() -> None:
    report().require_met()
    assert "All targets are met." in report().to_markdown()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"static": 0.69}, "mean of static is 0.6900"),
        ({"rebel_100": 0.70}, "after 100 updates"),
        ({"rebel_100": 0.60}, "does not beat the best static"),
    ],
)
def test_a_missed_target_is_named_and_fails(changes: dict[str, float], words: str) -> None:
    with pytest.raises(CheckFailedError, match=words):
        report(**changes).require_met()


def test_a_controller_that_does_not_change_hands_fails() -> None:
    with pytest.raises(CheckFailedError, match=r"two halves REBEL reaches 0\.5000, not 0\.7650"):
        report(reached=0.5).require_met()


def test_the_report_is_plain_data() -> None:
    assert replace(report(), failures=("no",)).to_json()["failures"] == ["no"]
