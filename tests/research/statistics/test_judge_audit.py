"""The audit of judges, on made-up judgments and on users'."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from judge_server import serving
from palate.core.errors import InvalidInputError
from research.command_line import program
from research.statistics.judge_audit import AuditJob, audit, main, render_audit

WORDS = ("calm", "river", "stone", "green", "light", "paper", "morning", "quiet")


def judgments(path, *, n_questions=15, n_each=6):
    """The polite answer is preferred; length says nothing."""
    draws = np.random.default_rng(7)
    rows = []
    for number in range(n_questions * n_each):
        question = f"q{number % n_questions}"
        good, bad = (
            " ".join(draws.choice(WORDS, size=int(draws.integers(3, 12)))) for _ in range(2)
        )
        rows.append(
            {
                "prompt": f"Say something, {question}.",
                "chosen": f"please {good} thanks {number}",
                "rejected": f"go {bad} away {number}",
                "question_id": question,
                "user_id": f"u{number % 5}",
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = judgments(tmp_path_factory.mktemp("audit") / "pairs.jsonl")
    return audit(AuditJob((path,), ridge=1.0, n_folds=3))


def test_the_learned_reward_finds_what_users_like_and_length_does_not(found):
    by_name = {one.judge: one for one in found.judges}
    light = next(one for name, one in by_name.items() if name.startswith("light"))
    assert light.agreement.estimate > 0.95
    assert abs(by_name["longer wins"].agreement.estimate - 0.5) < 0.2
    assert light.agreement.n_clusters == 15
    assert light.flips.estimate == 0.0


def test_a_judge_of_positions_is_caught(found):
    control = next(one for one in found.judges if one.judge.startswith("first"))
    assert control.flips.estimate == 1.0
    assert control.agreement.estimate == 0.5
    assert control.n_ties == 90


def test_the_learned_reward_never_saw_the_question_it_judges(tmp_path, monkeypatch):
    import research.statistics.judge_audit as recipe

    seen = []
    plain = recipe.fit_light

    def spy(pairs, **options):
        seen.append(set(pairs.groups))
        return plain(pairs, **options)

    monkeypatch.setattr(recipe, "fit_light", spy)
    audit(AuditJob((judgments(tmp_path / "pairs.jsonl"),), ridge=1.0, n_folds=3))
    everything = set().union(*seen)
    left_out = [everything - some for some in seen]
    assert set().union(*left_out) == everything
    assert sum(map(len, left_out)) == len(everything)


def test_an_endpoint_is_audited_beside_the_others_and_both_orders_are_asked(tmp_path):
    path = judgments(tmp_path / "pairs.jsonl", n_each=1)
    with serving() as server:
        found = audit(AuditJob((path,), ridge=1.0, n_folds=3, url=server.url, model="short-judge"))
        assert len(server.questions) == 2 * 15
    judge = next(one for one in found.judges if one.judge == "short-judge")
    longer = next(one for one in found.judges if one.judge == "longer wins")
    assert judge.agreement.estimate == pytest.approx(1 - longer.agreement.estimate)
    assert "short-judge" in render_audit(found, command="python -m research.statistics.judge_audit")


def test_too_few_questions_and_missing_columns_are_refused(tmp_path):
    path = judgments(tmp_path / "pairs.jsonl", n_questions=3)
    with pytest.raises(InvalidInputError, match="3 questions"):
        audit(AuditJob((path,), ridge=1.0))
    with pytest.raises(InvalidInputError, match="lacks 'colour'"):
        audit(AuditJob((path,), ridge=1.0, question="colour"))


@pytest.mark.study
@pytest.mark.slow
def test_on_mt_bench_length_and_a_learned_reward_beat_chance_and_fall_short_of_users(
    shared_folder,
):
    folder = shared_folder / "data" / "preferences"
    files = tuple(folder / f"mt_bench.{part}.jsonl" for part in ("train", "validation"))
    found = audit(AuditJob(files, ridge=1.0, n_folds=4))
    judges = {one.judge: one for one in found.judges}
    rows = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    share = np.mean([len(row["chosen"]) > len(row["rejected"]) for row in rows])
    ties = np.mean([len(row["chosen"]) == len(row["rejected"]) for row in rows])
    assert judges["longer wins"].agreement.estimate == pytest.approx(share + ties / 2)
    assert judges["longer wins"].agreement.low > 0.5
    light = judges["light reward, other questions' pairs"]
    assert light.agreement.low > 0.5
    assert light.agreement.high < found.users.estimate


def test_the_command_needs_its_file_and_both_halves_of_an_endpoint(tmp_path) -> None:
    path = tmp_path / "pairs.jsonl"

    def refused(*words):
        found = CliRunner().invoke(program(main), [str(path), *words]).exception
        assert isinstance(found, InvalidInputError)
        return str(found)

    assert "does not exist" in refused()
    path.write_text("{}\n")
    assert "--model" in refused("--url", "http://127.0.0.1:1/v1")
