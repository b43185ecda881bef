"""The library on disk: whole parts only, in order, of one base."""

import json
from dataclasses import replace

import pytest

from palate.core.errors import FormatError, InvalidInputError
from palate.core.types import BaseRecord, Objective
from palate.library.folder import LibraryFolder
from palate.library.manifest import ExpertRecord, Manifest
from palate.training.anchors import objective_anchors

BASE = BaseRecord("some/base", None, "a" * 64, "b" * 64)
OBJECTIVES = (Objective("letters", "More letters."), Objective("short"))
MANIFEST = Manifest(BASE, OBJECTIVES, beta=0.1, seed=3, config={"x": 1}, versions={"torch": "2"})
ANCHORS = objective_anchors(("letters", "short"))


def write_expert(text):
    def fill(folder):
        (folder / "adapter_config.json").write_text("{}")
        (folder / "adapter_model.safetensors").write_text(text)
        (folder / "README.md").write_text("card")

    return fill


def record(index=0, key="k"):
    return ExpertRecord(ANCHORS[index], key, {}, tilt_mean=-0.5, tilt_sd=0.25, n_tilts=7)


def with_parts(folder):
    library = LibraryFolder.create(folder, MANIFEST)
    library = library.with_reward("short", write_expert("r"), key="rk")
    library = library.with_rollouts_begun(key="ok")
    library = library.with_rollouts(key="ok", write=lambda path: path.write_text("rows\n"))
    return library.with_expert(record(), write_expert("e"))


def test_a_library_is_opened_as_it_was_written(tmp_path):
    library = with_parts(tmp_path / "lib")
    again = LibraryFolder.open(tmp_path / "lib")
    assert again == library
    assert again.manifest.expert_names == ("letters",)
    assert again.expert_folders() == {"letters": tmp_path / "lib" / "experts" / "letters"}
    assert again.rollouts_path.read_text() == "rows\n"
    assert set(again.manifest.expert("letters").files) == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert again.has_expert("letters", key="k")
    assert not again.has_expert("letters", key="other")
    assert again.has_reward("short", key="rk")
    assert not again.has_reward("letters", key="rk")


def test_creating_again_keeps_finished_parts_and_takes_the_new_settings(tmp_path):
    with_parts(tmp_path / "lib")
    again = LibraryFolder.create(tmp_path / "lib", replace(MANIFEST, config={"x": 2}))
    assert again.manifest.expert_names == ("letters",)
    assert again.has_rollouts(key="ok")
    assert LibraryFolder.open(tmp_path / "lib").manifest.config == {"x": 2}


def test_experts_of_another_beta_are_not_kept(tmp_path):
    with_parts(tmp_path / "lib")
    again = LibraryFolder.create(tmp_path / "lib", replace(MANIFEST, beta=0.2))
    assert again.manifest.expert_names == ()
    assert again.has_rollouts(key="ok")


def test_experts_stand_in_the_order_asked_for_and_others_can_be_dropped(tmp_path):
    library = LibraryFolder.create(tmp_path / "lib", MANIFEST)
    library = library.with_expert(record(1), write_expert("1"))
    library = library.with_expert(record(0), write_expert("0"))
    assert library.manifest.expert_names == ("short", "letters")
    order = ("letters", "short")
    library = library.with_experts_of(order)
    assert LibraryFolder.open(tmp_path / "lib").manifest.expert_names == order
    library = library.with_experts_of(("short",))
    assert LibraryFolder.open(tmp_path / "lib").manifest.expert_names == ("short",)
    assert not (tmp_path / "lib" / "experts" / "letters").exists()


@pytest.mark.parametrize(
    "part", ["experts/letters/adapter_model.safetensors", "rewards/short/adapter_config.json"]
)
def test_a_changed_or_missing_file_is_refused(tmp_path, part):
    with_parts(tmp_path / "lib")
    path = tmp_path / "lib" / part
    path.write_text("changed")
    with pytest.raises(FormatError, match="was changed"):
        LibraryFolder.open(tmp_path / "lib")
    path.unlink()
    with pytest.raises(FormatError, match="is missing"):
        LibraryFolder.open(tmp_path / "lib")


def test_changed_rollouts_are_refused_when_they_are_asked_for(tmp_path):
    library = with_parts(tmp_path / "lib")
    (tmp_path / "lib" / "rollouts.jsonl").write_text("others\n")
    with pytest.raises(FormatError, match="was changed"):
        _ = library.rollouts_path


def test_a_controller_is_listed_with_its_hash_kept_by_a_resumed_build_and_refused_if_changed(
    tmp_path,
):
    folder = tmp_path / "lib"
    assert "controller" not in with_parts(folder).manifest.to_json()
    library = LibraryFolder.open(folder).with_controller(
        lambda target: (target / "run.json").write_text("{}"), key="experts"
    )
    assert LibraryFolder.open(folder) == library
    assert library.manifest.controller.key == "experts"
    assert set(library.manifest.controller.files) == {"run.json"}
    assert LibraryFolder.create(folder, MANIFEST).manifest.controller == library.manifest.controller
    (library.controller_folder / "run.json").write_text("[]")
    with pytest.raises(FormatError, match=r"run\.json.* was changed"):
        LibraryFolder.open(folder)


def test_users_may_edit_a_card(tmp_path):
    with_parts(tmp_path / "lib")
    (tmp_path / "lib" / "experts" / "letters" / "README.md").write_text("my notes")
    assert LibraryFolder.open(tmp_path / "lib").manifest.expert_names == ("letters",)


def test_another_base_is_refused_by_name(tmp_path):
    library = with_parts(tmp_path / "lib")
    other = BaseRecord("other/base", None, "c" * 64, "b" * 64)
    with pytest.raises(FormatError, match=r"'some/base'.*'other/base'"):
        library.require_base(other)
    with pytest.raises(FormatError, match="other/base"):
        LibraryFolder.create(tmp_path / "lib", replace(MANIFEST, base=other))
    library.require_base(replace(BASE, path="same files elsewhere"))


def test_other_objectives_are_refused(tmp_path):
    with_parts(tmp_path / "lib")
    with pytest.raises(FormatError, match="letters, short"):
        LibraryFolder.create(tmp_path / "lib", replace(MANIFEST, objectives=(Objective("new"),)))


def test_a_failing_write_leaves_no_expert_and_no_rubbish_after_the_next_build(tmp_path):
    library = with_parts(tmp_path / "lib")

    def fails(folder):
        (folder / "adapter_model.safetensors").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        library.with_expert(record(1), fails)
    assert LibraryFolder.open(tmp_path / "lib").manifest.expert_names == ("letters",)
    assert [path.name for path in (tmp_path / "lib" / "experts").iterdir()] == ["letters"]
    # what kill -9 leaves: a temporary folder that nobody names
    left = tmp_path / "lib" / "experts" / ".short.abc.tmp"
    left.mkdir()
    (left / "adapter_model.safetensors").write_text("half")
    assert LibraryFolder.open(tmp_path / "lib").manifest.expert_names == ("letters",)
    LibraryFolder.create(tmp_path / "lib", MANIFEST)
    assert not left.exists()


def test_replacing_an_expert_never_leaves_the_old_hash_with_the_new_file(tmp_path):
    library = with_parts(tmp_path / "lib")

    def fails(folder):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        library.with_expert(record(key="new"), fails)
    assert LibraryFolder.open(tmp_path / "lib").manifest.expert_names == ()


def test_sampled_answers_stay_until_the_scored_rollouts_are_entered(tmp_path):
    library = LibraryFolder.create(tmp_path / "lib", MANIFEST).with_rollouts_begun(key="ok")
    library.unfinished_rollouts.write_text("answers\n")

    def killed(path):
        path.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        library.with_rollouts(key="ok", write=killed)
    again = LibraryFolder.create(tmp_path / "lib", MANIFEST).with_rollouts_begun(key="ok")
    assert not again.has_rollouts(key="ok")
    assert again.unfinished_rollouts.read_text() == "answers\n"
    again = again.with_rollouts(key="ok", write=lambda path: path.write_text("rows\n"))
    assert again.rollouts_path.read_text() == "rows\n"
    assert not again.unfinished_rollouts.exists()


def test_answers_scored_anew_are_found_again_after_a_kill(tmp_path, monkeypatch):
    library, rollouts = with_parts(tmp_path / "lib"), tmp_path / "lib" / "rollouts.jsonl"

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("palate.library.folder.hash_bytes", killed)  # after the file is written
        with pytest.raises(KeyboardInterrupt):
            library.with_rollouts(key="ok", write=lambda path: path.write_text("other rewards\n"))
    again = LibraryFolder.create(tmp_path / "lib", MANIFEST).with_rollouts_begun(key="ok")
    assert not again.has_rollouts(key="ok")
    assert again.unfinished_rollouts.read_text() == "rows\n"
    again = again.with_rollouts(key="ok", write=lambda path: path.write_text("other rewards\n"))
    assert again.rollouts_path.read_text() == rollouts.read_text() == "other rewards\n"
    assert not again.unfinished_rollouts.exists()


def test_a_kill_while_rollouts_are_forgotten_leaves_none_under_the_new_key(tmp_path, monkeypatch):
    library = with_parts(tmp_path / "lib")
    library.unfinished_rollouts.write_text("answers of the old key\n")

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            library.with_rollouts_begun(key="new")
    again = LibraryFolder.create(tmp_path / "lib", MANIFEST).with_rollouts_begun(key="new")
    assert not again.unfinished_rollouts.exists()


def test_rollouts_of_another_key_are_forgotten(tmp_path):
    library = with_parts(tmp_path / "lib").with_rollouts_begun(key="new")
    assert not library.has_rollouts(key=None)
    assert not (tmp_path / "lib" / "rollouts.jsonl").exists()
    with pytest.raises(FormatError, match="no rollouts"):
        _ = library.rollouts_path


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "holiday.jpg").write_text("x")
    with pytest.raises(InvalidInputError, match="not empty"):
        LibraryFolder.create(tmp_path, MANIFEST)
    with pytest.raises(InvalidInputError, match=r"library\.json"):
        LibraryFolder.open(tmp_path)


def test_a_manifest_of_another_version_or_without_a_field_is_refused(tmp_path):
    with_parts(tmp_path / "lib")
    path = tmp_path / "lib" / "library.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "schema_version": 99}))
    with pytest.raises(FormatError, match="version 99"):
        LibraryFolder.open(tmp_path / "lib")
    del value["experts"]
    path.write_text(json.dumps(value))
    with pytest.raises(FormatError, match="experts"):
        LibraryFolder.open(tmp_path / "lib")


def test_an_unknown_expert_is_named_with_those_there_are(tmp_path):
    library = with_parts(tmp_path / "lib")
    with pytest.raises(InvalidInputError, match=r"'nobody'; it has letters"):
        library.manifest.expert("nobody")
