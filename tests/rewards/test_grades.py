from pathlib import Path

import pytest

from judge_server import serving
from palate.core.errors import InvalidInputError, ProviderError
from palate.core.files import append_jsonl, read_jsonl
from palate.rewards.functions import fit_function, function_from, load_function
from palate.rewards.judge import KEY_VARIABLE, Grader
from palate.rewards.settings import GradeSettings

PROMPTS = ["p", "p", "q"]
ANSWERS = ["one two", "one", "one two three"]


def n_words(answer: str, _second: str) -> str:
    return str(len(answer.split()))


def settings_of(url: str, folder: Path, **changes: object) -> GradeSettings:
    content = {"base_url": url, "model": "m", "criterion": "Many words.", "max_requests": 9}
    content = {**content, "cache": folder / "new/grades.jsonl", **changes}
    return GradeSettings.checked(content, source="the test")


def test_an_answer_is_graded_once_whatever_comes_after(tmp_path: Path) -> None:
    with serving(n_words) as server:
        settings = settings_of(server.url, tmp_path)
        grader = Grader(settings)
        assert grader(PROMPTS, ANSWERS) == [2.0, 1.0, 3.0]
        assert grader(prompts=["p", "p"], completions=["one", "one"], mood="any") == [1.0, 1.0]
        assert Grader(settings)(PROMPTS, ANSWERS) == [2.0, 1.0, 3.0]
        assert len(server.questions) == 3
        assert "Criterion: Many words." in server.questions[0]
        other = Grader(settings.model_copy(update={"criterion": "Few words."}))
        other(["p"], ["one"])
        assert len(server.questions) == 4
    assert len(read_jsonl(settings.cache)) == 4


def test_a_batch_beyond_the_requests_left_is_refused_before_any_is_sent(tmp_path: Path) -> None:
    with serving(n_words) as server:
        settings = settings_of(server.url, tmp_path, max_requests=3)
        Grader(settings)(["p", "p"], ["one", "two"])
        again = Grader(settings)  # of another run, with the same cache
        with pytest.raises(InvalidInputError, match="2 requests, but of max_requests=3 1 are left"):
            again(PROMPTS, ANSWERS)
        assert len(server.questions) == 2
        assert again(["p", "q"], ["one", "one"]) == [1.0, 1.0]


def test_replies_that_are_no_grade_are_requests_too(tmp_path: Path) -> None:
    replies = iter(["good", "8"])
    with serving(lambda _first, _second: next(replies)) as server:
        settings = settings_of(server.url, tmp_path, max_requests=2)
        assert Grader(settings)(["p"], ["a"]) == [8.0]
        assert [row["grade"] for row in read_jsonl(settings.cache)] == [None, 8.0]
        with pytest.raises(InvalidInputError, match="0 are left"):
            Grader(settings)(["p"], ["b"])


@pytest.mark.parametrize(
    ("reply", "grade"), [("7", 7.0), (" 10.\n", 10.0), ("**Grade: 3**", 3.0), ("0/10", 0.0)]
)
def test_grades_in_a_few_spellings_are_read(reply: str, grade: float, tmp_path: Path) -> None:
    with serving(lambda _first, _second: reply) as server:
        assert Grader(settings_of(server.url, tmp_path))(["p"], ["a"]) == [grade]


@pytest.mark.parametrize("reply", ["11", "7.5", "-3", "7 of 9", "seven", "7 8", ""])
def test_anything_else_is_no_grade(reply: str, tmp_path: Path) -> None:
    with serving(lambda _first, _second: reply) as server:
        with pytest.raises(ProviderError, match="no grade in 3 attempts"):
            Grader(settings_of(server.url, tmp_path))(["p"], ["a"])
        assert len(server.questions) == 3


def test_a_line_cut_off_by_a_crash_is_requested_again(tmp_path: Path) -> None:
    with serving(n_words) as server:
        settings = settings_of(server.url, tmp_path)
        Grader(settings)(["p"], ["one"])
        with settings.cache.open("a") as file:
            file.write('{"key": "ab')
        grader = Grader(settings)
        grader(["p", "q"], ["one", "one"])
        assert len(server.questions) == 2
    assert len(read_jsonl(settings.cache)) == 2


def test_the_key_of_the_environment_is_sent_and_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    grader = Grader(settings_of("http://127.0.0.1:9/v1", tmp_path))
    assert grader._judge.connection.client.api_key == "secret"
    assert "secret" not in str(grader.source)


def test_a_stored_judge_is_made_again_from_its_settings(tmp_path: Path) -> None:
    with serving(n_words) as server:
        source = {"judge": settings_of(server.url, tmp_path).model_dump(mode="json")}
        reward = fit_function(
            function_from(source), objective="wordy", prompts=PROMPTS, answers=ANSWERS
        )
        reward.save(tmp_path)
        again = load_function(tmp_path, objective="wordy", given={})
        assert isinstance(again.function, Grader)
        assert again.fingerprint == reward.fingerprint
        assert (again.score(PROMPTS, ANSWERS) == reward.score(PROMPTS, ANSWERS)).all()
        assert reward.score(["p"], ["one two"]).tolist() == [0.5]  # the mean of 1, 2 and 3
        assert len(server.questions) == 3


def test_a_cache_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    settings = settings_of("http://127.0.0.1:9/v1", tmp_path)
    append_jsonl(settings.cache, [{"text": "another file"}])
    with pytest.raises(InvalidInputError, match="no cache of grades"):
        Grader(settings)
