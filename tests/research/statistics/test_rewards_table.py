from pathlib import Path

import pytest
from typer.testing import CliRunner

from palate.core.errors import InvalidInputError
from palate.rewards.card import load_card
from palate.rewards.held_out import Accuracy, HeldOut
from research.command_line import program
from research.statistics.rewards_table import TableJob, compare_rewards, main, markdown_table
from rewards.test_job import write_pairs


@pytest.fixture
def job(tmp_path: Path) -> TableJob:
    for part, seed in (("train", 1), ("validation", 2)):
        write_pairs(tmp_path / f"friendly.{part}.jsonl", seed=seed)
    return TableJob(folder=tmp_path, objectives=("friendly",), out=tmp_path / "out")


def test_the_table_sets_trunks_beside_the_length_baselines(job: TableJob) -> None:
    table = compare_rewards(job)
    assert table["friendly"]["light"].accuracy.n == 30
    written = (job.out / "table.md").read_text()
    assert written == markdown_table(table)
    assert (job.out / "light/friendly/card.json").is_file()


def test_a_second_run_trains_nothing_and_says_the_same(job: TableJob) -> None:
    first = compare_rewards(job)
    card = job.out / "light/friendly/card.json"
    before = card.stat().st_mtime_ns
    assert compare_rewards(job) == first
    assert card.stat().st_mtime_ns == before


def test_a_reward_trained_otherwise_is_not_passed_off(job: TableJob) -> None:
    compare_rewards(job)
    for change in ({"seed": 1}, {"overrides": {"light": ("least_texts=3",)}}):
        with pytest.raises(InvalidInputError, match="other pairs or with other settings"):
            compare_rewards(job.model_copy(update=change))
    write_pairs(job.folder / "friendly.train.jsonl", seed=5)
    with pytest.raises(InvalidInputError, match="other pairs or with other settings"):
        compare_rewards(job)


def test_settings_may_be_of_one_objective(job: TableJob) -> None:
    changed = job.model_copy(
        update={"overrides": {"light": ("least_texts=3",), "light/friendly": ("ridge=0.5",)}}
    )
    compare_rewards(changed)
    card = load_card(job.out / "light/friendly")
    assert (card.settings["least_texts"], card.settings["ridge"]) == (3, 0.5)


def test_settings_of_an_unknown_trunk_are_refused(job: TableJob) -> None:
    wrong = job.model_copy(update={"overrides": {"lihgt": ("least_texts=3",)}})
    with pytest.raises(InvalidInputError, match="for 'lihgt', which is no trunk"):
        compare_rewards(wrong)


def test_trunks_of_one_name_are_refused(job: TableJob) -> None:
    with pytest.raises(InvalidInputError, match="have one name"):
        compare_rewards(job.model_copy(update={"trunks": ("a/base", "b/base")}))


def test_the_markdown_is_what_it_should_be_to_the_letter() -> None:
    def share(estimate: float) -> Accuracy:
        return Accuracy(estimate=estimate, low=0.25, high=0.75, n=8, n_groups=8, method="wilson")

    held_out = HeldOut(
        accuracy=share(0.5),
        loss=0.7,
        longer_wins=share(0.125),
        shorter_wins=share(0.875),
        length_only=share(0.625),
    )
    assert markdown_table({"x": {"light": held_out}, "y": {"base": held_out}}) == (
        "| objective | pairs | light | base | longer wins | shorter wins | length only |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
        "| x | 8 | 0.500 [0.250, 0.750] |  | 0.125 | 0.875 | 0.625 |\n"
        "| y | 8 |  | 0.500 [0.250, 0.750] | 0.125 | 0.875 | 0.625 |\n"
    )


def test_the_command_prints_markdown_and_keeps_it(job: TableJob) -> None:
    words = [str(job.folder), "--out", str(job.out), "--objective", "friendly"]
    done = CliRunner().invoke(program(main), [*words, "--set", "light:least_texts=3"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[2].startswith("| friendly | 30 | 1.000 [0.886, 1.000] |")
    assert (job.out / "table.md").read_text() == done.stdout
