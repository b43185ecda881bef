"""Files are whole or absent."""

import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from palate.core import files
from palate.core.errors import FormatError, InvalidInputError


def test_json_comes_back_and_numpy_becomes_plain(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"x": np.float64(0.5), "y": np.arange(3), "z": None})
    assert files.read_json(tmp_path / "a.json") == {"x": 0.5, "y": [0, 1, 2], "z": None}


def test_numbers_that_json_has_no_word_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="not finite"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "b.json").write_text('{"x": NaN}')
    with pytest.raises(InvalidInputError, match="not valid JSON"):
        files.read_json(tmp_path / "b.json")


def test_a_versioned_file_of_another_kind_or_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_versioned(path, kind="soup", version=1, content={"x": 1})
    assert files.read_versioned(path, kind="soup", version=1)["x"] == 1
    with pytest.raises(FormatError, match="'portfolio' is needed"):
        files.read_versioned(path, kind="portfolio", version=1)
    with pytest.raises(FormatError, match="reads version 2"):
        files.read_versioned(path, kind="soup", version=2)


def test_a_torn_last_line_is_dropped_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    files.append_jsonl(path, [{"n": 1}, {"n": 2}])
    with path.open("a") as file:
        file.write('{"n": 3, "te')
    with pytest.raises(InvalidInputError, match="Line 3"):
        files.read_jsonl(path)
    assert files.read_jsonl(path, is_torn_end_dropped=True) == [{"n": 1}, {"n": 2}]


def test_a_line_torn_within_a_letter_is_torn_as_any_other(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes('{"n": 1}\n{"text": "naïve'.encode()[:-3])  # the first byte of two of the ï
    assert files.read_jsonl(path, is_torn_end_dropped=True) == [{"n": 1}]
    with pytest.raises(InvalidInputError, match=r"Line 2 .* is not UTF-8 text"):
        files.read_jsonl(path)


def test_files_of_windows_are_read(tmp_path: Path) -> None:
    """With the mark that its editors put before UTF-8, and with its line ends."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"n": 1}\r\n{"n": 2}\r\n')
    assert files.read_jsonl(path) == [{"n": 1}, {"n": 2}]
    path.write_bytes(b'\xef\xbb\xbf{"n": 1}\r\n')
    assert files.read_json(path) == {"n": 1}


def test_half_a_pair_of_escapes_is_refused_and_a_whole_one_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(r'{"prompt": "\ud83d\udc15"}' + "\n")
    assert files.read_jsonl(path) == [{"prompt": "\U0001f415"}]
    path.write_text(r'{"prompt": "\ud83d"}' + "\n")
    with pytest.raises(InvalidInputError, match=r"Line 1 .*half a surrogate pair"):
        files.read_jsonl(path)


def test_a_file_that_says_no_kind_and_a_folder_are_named_as_such(tmp_path: Path) -> None:
    files.write_json(tmp_path / "plain.json", {"n": 1})
    with pytest.raises(FormatError, match="does not say of what kind it is"):
        files.read_versioned(tmp_path / "plain.json", kind="portfolio", version=1)
    with pytest.raises(InvalidInputError, match="is a folder"):
        files.read_json(tmp_path)


def test_missing_files_and_lines_that_are_no_objects_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="does not exist"):
        files.read_jsonl(tmp_path / "none.jsonl")
    (tmp_path / "list.jsonl").write_text("[1]\n")
    with pytest.raises(InvalidInputError, match=r"Line 1 .* not a JSON object"):
        files.read_jsonl(tmp_path / "list.jsonl")


def write_for_ever(path: Path) -> None:
    size = 0
    while True:
        size = (size + 1) % 50
        files.write_json(path, {"values": [size] * 20000})


def test_a_reader_never_sees_half_a_file_even_when_the_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"values": [0]})
    context = multiprocessing.get_context("fork")
    for pause in (0.02, 0.05, 0.08):
        writer = context.Process(target=write_for_ever, args=(path,))
        writer.start()
        time.sleep(pause)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        values = files.read_json(path)["values"]
        assert len(set(values)) == 1


def test_a_folder_that_could_not_be_filled_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    files.write_folder_atomic(target, lambda folder: (folder / "a").write_text("old"))

    def fail(folder: Path) -> None:
        (folder / "a").write_text("new")
        raise InvalidInputError("no")

    with pytest.raises(InvalidInputError):
        files.write_folder_atomic(target, fail)
    assert (target / "a").read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["folder"]


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(pipe.read_text)
        files.write_text_atomic(pipe, "hello")
        assert reader.result(timeout=10) == "hello"
    assert pipe.is_fifo()


def test_hashes_do_not_depend_on_the_order_of_keys_but_on_every_value() -> None:
    assert files.hash_value({"a": 1, "b": 2}) == files.hash_value({"b": 2, "a": 1})
    assert files.hash_value({"a": 1}) != files.hash_value({"a": 2})
    assert files.hash_bytes(b"ab", b"c") != files.hash_bytes(b"a", b"bc")


@pytest.mark.parametrize("text", ["[" * 200_000, "1" * 10_000])
def test_json_that_python_cannot_read_is_refused_with_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InvalidInputError, match=r"not valid JSON \(it cannot be read"):
        files.read_json(tmp_path / "a.json")
    (tmp_path / "a.jsonl").write_text(f'{{"x": {text}}}')
    with pytest.raises(InvalidInputError, match="Line 1 of the file"):
        files.read_jsonl(tmp_path / "a.jsonl")


def test_an_integer_too_large_for_a_float_is_no_finite_number() -> None:
    assert [files.is_finite_number(value) for value in (10**400, 3, -0.5, True)] == [
        False,
        True,
        True,
        False,
    ]
