import sqlite3
import threading
from pathlib import Path

import pytest

from judge_server import serving
from palate.core.errors import FormatError, ProviderError
from palate.rewards.judge import EndpointJudge, Question
from research.statistics.verdict_cache import CachedJudge, ScoreCache

SHORT_OR_LONG = Question("Why?", "Because.", "Because it is so.", "Brief.")


def test_an_interrupted_batch_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    ScoreCache(path).save({"before": 0.5})
    torn = sqlite3.connect(path)
    torn.execute("BEGIN")
    torn.execute("INSERT INTO scores VALUES ('half', 0.1)")
    torn.close()  # as when the process ends: never committed
    assert ScoreCache(path).load(["before", "half"]) == {"before": 0.5}


def test_more_keys_than_one_query_holds(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    scores = {f"key {i}": i / 7 for i in range(1201)}
    cache.save(scores)
    assert cache.load(list(scores)) == scores


def test_several_writers_share_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    errors: list[BaseException] = []

    def write(name: str) -> None:
        try:
            for i in range(20):
                ScoreCache(path).save({f"{name}{i}": 0.5})
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(ScoreCache(path).load([f"{name}{i}" for name in "abc" for i in range(20)])) == 60


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.sqlite"
    text.write_text("not a database, but long enough to have a header of one hundred bytes " * 3)
    with pytest.raises(FormatError, match=r"text\.sqlite"):
        ScoreCache(text).load(["k"])
    other = tmp_path / "other.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE scores (a)")
    connection.commit()
    connection.close()
    with pytest.raises(FormatError, match=r"other\.sqlite"):
        ScoreCache(other).load(["k"])
    with pytest.raises(FormatError, match="cannot be opened"):
        ScoreCache(tmp_path).load(["k"])


def test_known_verdicts_are_not_asked_again_even_by_another_process(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "verdicts.db")
    with serving() as server:
        for _ in range(2):
            judge = CachedJudge(EndpointJudge.connect(url=server.url, model="m"), cache)
            assert judge.compare([SHORT_OR_LONG, SHORT_OR_LONG]).tolist() == [1.0, 1.0]
        assert len(server.questions) == 1
        CachedJudge(EndpointJudge.connect(url=server.url, model="n"), cache).compare(
            [SHORT_OR_LONG]
        )
        assert len(server.questions) == 2


def test_a_verdict_that_fails_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.db"
    with serving(lambda _first, _second: "neither") as server:
        judge = EndpointJudge.connect(url=server.url, model="m")
        with pytest.raises(ProviderError, match="no verdict"):
            CachedJudge(judge, ScoreCache(path)).compare([SHORT_OR_LONG])
    assert not path.exists()
