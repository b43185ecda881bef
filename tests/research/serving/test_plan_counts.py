"""The paper plan: counted by hand, and its constants as the reports print them."""

from pathlib import Path

import pytest

from palate.core.errors import InvalidInputError
from palate.core.settings import load_settings
from research.serving.model_sizes import capacity_of, device_of, shape_of
from research.serving.plan import short
from research.serving.plan_counts import (
    REMEDIES,
    SOURCES,
    MeasuredSettings,
    PlanSettings,
    library_cost,
    plan,
)

ROUND = MeasuredSettings(
    feedback_per_second=100,
    requests_per_second=50,
    refit_seconds=10,
    bytes_per_user=1000,
    bytes_per_answer=2000,
    bytes_per_feedback=500,
)
SETTINGS = PlanSettings(
    users=(864_000,),
    model="llama-3.2-1b",
    answers_per_day=4,
    feedback_per_day=1,
    busy_share=2.5,
    answer_tokens=100,
    keep_days=10,
    years=2,
    disk_bytes=1e12,
    measured=ROUND,
)


def test_a_row_of_the_table_is_that_counted_by_hand() -> None:
    (row,) = plan(SETTINGS)["rows"]
    # 864,000 users are ten for every second of a day; four answers each, 2.5 times at the peak
    assert row["answers_per_second"] == pytest.approx(100)
    assert row["tokens_per_second"] == pytest.approx(10_000)
    assert row["feedback_per_second"] == pytest.approx(25)
    assert row["feedback_rows"] == pytest.approx(864_000 * 365 * 2)
    users, answers, feedback = 864e6, 864_000 * 4 * 10 * 2000, 864_000 * 730 * 500
    assert row["database_bytes"] == pytest.approx(users + answers + feedback)
    assert row["coefficient_bytes"] == 864_000 * 8 * 8
    assert row["refit_seconds"] == pytest.approx(8.64)
    assert row["needs"]["one server process"] == pytest.approx(125 / 50)
    assert row["needs"]["writers of feedback"] == pytest.approx(25 / 100)
    assert row["needs"]["one database's disk"] == pytest.approx(row["database_bytes"] / 1e12)
    assert row["needs"]["the nightly refit"] == pytest.approx(8.64 / 3600)


def test_devices_follow_from_what_one_does() -> None:
    load = SETTINGS.load()
    one = capacity_of(load, device_of("h200"), efficiency=0.5, max_together=256)
    (row,) = plan(SETTINGS)["rows"]
    needed = 100 / one.answers_per_second
    assert row["needs"]["one device"] == pytest.approx(needed)
    assert row["devices"] == int(needed) + 1
    # answers under way are as many as the devices hold: each device's batch, as far as it is used
    assert row["answers_at_once"] == pytest.approx(needed * one.answers_together)
    # 16 layers, 8 heads of 64, keys and values, two bytes: 32,768 a token, 1,124 tokens an answer
    assert row["cache_bytes"] == pytest.approx(row["answers_at_once"] * 1124 * 32_768)


def test_training_is_four_operations_a_parameter_and_token_however_many_users() -> None:
    found = library_cost(SETTINGS)
    tokens = 2 * 32 * 300 * (1024 + 200)  # both answers of a pair, with their prompt
    assert found["training_tokens_of_an_expert"] == tokens
    # the unembedding is the embedding here, so every parameter is computed with
    seconds = 4 * shape_of("llama-3.2-1b").n_parameters * tokens / (0.5 * 989e12)
    assert found["expert_hours"] == pytest.approx(seconds / 3600)
    # 8,000 rollouts of the base; 2,000 answers of each of nine policies for the payoff table
    assert found["payoff_hours"] == pytest.approx(found["rollout_hours"] * 18 / 8)
    assert found["library_hours"] == pytest.approx(
        found["rollout_hours"] + 8 * found["expert_hours"] + found["payoff_hours"]
    )
    few = plan(SETTINGS.model_copy(update={"users": (1000,)}))
    assert few["library"] == plan(SETTINGS)["library"]


def test_what_breaks_first_comes_first_with_what_to_do() -> None:
    breaks = plan(SETTINGS)["breaks"]
    users = [one["users"] for one in breaks]
    assert users == sorted(users)
    by_name = {one["what"]: one["users"] for one in breaks}
    assert by_name.keys() == REMEDIES.keys()
    # a server process answers 50 requests a second; 864,000 users send 125
    assert by_name["one server process"] == pytest.approx(864_000 * 50 / 125)
    assert by_name["writers of feedback"] == pytest.approx(864_000 * 4)
    at_limit = SETTINGS.model_copy(update={"users": (round(by_name["one server process"]),)})
    (row,) = plan(at_limit)["rows"]
    assert row["needs"]["one server process"] == pytest.approx(1.0, rel=1e-4)


def test_a_mixture_costs_a_row_and_a_cache_for_each_expert_but_not_on_the_head() -> None:
    def cache(**changed: object) -> int:
        return plan(SETTINGS.model_copy(update=changed))["one_device"]["cache_bytes_of_an_answer"]

    assert cache(rows_per_answer=8) == 8 * cache()
    assert cache(rows_per_answer=8, placement="head") == cache()


def test_every_measured_constant_is_printed_in_its_report(project_root: Path) -> None:
    defaults = MeasuredSettings().model_dump()
    assert SOURCES.keys() == defaults.keys()
    for name, source in SOURCES.items():
        assert source.figure in (project_root / source.report).read_text(), name
        digits = "".join(c for c in source.figure.split("(")[0] if c.isdigit() or c == ".")
        assert float(digits.rstrip(".")) == defaults[name], name


def test_the_document_has_the_default_table_and_what_breaks(project_root: Path) -> None:
    text, found = (project_root / "docs/scaling.md").read_text(), plan(PlanSettings())
    for row in found["rows"]:
        rates = (row["answers_per_second"], row["tokens_per_second"], row["answers_at_once"])
        cells = [f"{row['users']:,}", *map(short, rates), f"{short(row['cache_bytes'])}B"]
        cells += [f"{row['devices']:,}", f"{short(row['coefficient_bytes'])}B"]
        cells.append(f"{short(row['database_bytes'])}B")
        assert f"| {' | '.join(cells)} |" in text
    for limit in found["breaks"]:
        assert f"| {limit['what']} | {short(limit['users'])} users | {limit['remedy']} |" in text
    assert f"takes {found['library']['library_hours']:.1f} device hours" in text
    mixed = plan(PlanSettings(users=(10**6,), rows_per_answer=8))["rows"][0]
    assert f"{mixed['devices']} devices for a million" in text


def test_the_default_table_goes_from_a_thousand_to_a_billion_users() -> None:
    rows = plan(PlanSettings())["rows"]
    assert [row["users"] for row in rows] == [10**k for k in range(3, 10)]


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(InvalidInputError, match="at least one number of users"):
        plan(PlanSettings(users=()))
    with pytest.raises(InvalidInputError, match="'gpt-9' is not listed"):
        plan(load_settings(PlanSettings, overrides=["model=gpt-9"]))
    with pytest.raises(InvalidInputError, match=r"measured\.feedback"):
        load_settings(PlanSettings, overrides=["measured.feedback=1"])


def test_numbers_are_shown_with_three_digits_and_a_unit() -> None:
    assert [short(v) for v in (0.174, 12_300, 4.14e11, 999)] == ["0.174", "12.3k", "414G", "999"]
