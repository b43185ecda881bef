"""A build: whole, resumed after kill -9 to the same bytes, and refused on bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import yaml
from transformers import PreTrainedTokenizerFast

from fakes import save_tiny_llama
from palate.build.builder import dropped_experts_note, open_builder
from palate.build.library import build_library
from palate.build.measure import measure_library
from palate.build.reward_sources import split_groups
from palate.build.run_file import RunSettings, read_prompts
from palate.core.errors import FormatError, InvalidInputError, MissingExtraError
from palate.core.settings import load_settings
from palate.core.types import BaseRecord, Objective
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.library.manifest import ExpertRecord, Manifest
from palate.library.rewards import library_rewards
from palate.models.load import load_base
from palate.rewards.pairs import read_pairs
from palate.training.anchors import Anchor
from palate.training.rollouts import read_rollouts

PARAMETERS = "adapter_model.safetensors"


@pytest.fixture
def run_file(tmp_path):
    """A run of seconds: a random base, one learned reward and one rule, three experts."""
    save_tiny_llama(tmp_path / "base")
    rows = [{"prompt": f"prompt {index}"} for index in range(6)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [
        {"prompt": f"about {i}", "chosen": f"please and thanks {i}", "rejected": f"go away {i}"}
        for i in range(40)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    content = {
        "model_name_or_path": str(tmp_path / "base"),
        "prompts": str(tmp_path / "prompts.jsonl"),
        "objectives": [
            {"name": "polite", "reward": {"pairs": str(tmp_path / "pairs.jsonl")}},
            {
                "name": "short",
                "description": "Few characters.",
                "reward": {
                    "rule": {
                        "kind": "length",
                        "unit": "characters",
                        "low": 0,
                        "high": 16,
                        "prefer": "shorter",
                    }
                },
            },
        ],
        "rollouts": {"num_generations": 3, "max_completion_length": 10, "chunk_prompts": 2},
        "anchors": {"kind": "signed", "n_random": 1},
        "adapter": {"r": 4},
        "training": {"max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 0.01},
        "seed": 11,
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def settings_of(run_file, *overrides):
    return load_settings(RunSettings, run_file, overrides=overrides)


def parameters(folder):
    return {
        path.parent.name: path.read_bytes()
        for path in sorted((folder / "experts").glob(f"*/{PARAMETERS}"))
    }


def test_a_run_file_becomes_a_library_that_answers(run_file, tmp_path):
    built = build_library(settings_of(run_file), out=tmp_path / "lib")
    assert built.trained == ("polite", "short", "signed-000")
    library = LibraryFolder.open(tmp_path / "lib")
    assert library.manifest.expert_names == built.trained
    assert library.manifest.config["seed"] == 11
    assert library.manifest.objectives[1].description == "Few characters."
    rewards = library_rewards(library)
    assert rewards.objectives == ("polite", "short")
    rows = [json.loads(line) for line in library.rollouts_path.read_text().splitlines()]
    assert len(rows) == 18
    scored = rewards.score([r["prompt"] for r in rows], [r["completion"] for r in rows])
    stored = np.array([[row["rewards"]["polite"], row["rewards"]["short"]] for row in rows])
    assert np.array_equal(scored.round(6), stored)
    assert Library.load(tmp_path / "lib").bank.n_experts == 3
    assert "wants" in (library.expert_folder("short") / "README.md").read_text()


def test_building_again_makes_only_what_is_missing(run_file, tmp_path):
    build_library(settings_of(run_file), out=tmp_path / "lib")
    before = parameters(tmp_path / "lib")
    again = build_library(settings_of(run_file), out=tmp_path / "lib")
    assert again.trained == ()
    (told,) = again.to_json()["rewards"].items()  # of the learned one; the other is a rule
    assert told[0] == "polite"
    assert told[1]["accuracy"]["n"] == 20  # half of the pairs
    more = build_library(settings_of(run_file, "anchors.n_random=2"), out=tmp_path / "lib")
    assert more.trained == ("signed-001",)
    assert {name: parameters(tmp_path / "lib")[name] for name in before} == before
    other = build_library(settings_of(run_file, "training.max_steps=4"), out=tmp_path / "lib")
    assert other.trained == ("polite", "short", "signed-000")
    assert set(parameters(tmp_path / "lib")) == set(before)
    assert parameters(tmp_path / "lib") != before


def test_an_objectives_own_expert_is_made_otherwise_and_alone_again_when_that_changes(
    run_file, tmp_path
):
    content = yaml.safe_load(run_file.read_text())
    own = {"adapter": {"r": 8, "target_modules": "lm_head"}, "training": {"method": "spectral"}}
    content["objectives"][1]["expert"] = own
    run_file.write_text(yaml.safe_dump(content))
    assert len(build_library(settings_of(run_file), out=tmp_path / "lib").trained) == 3
    made = {
        name: json.loads((tmp_path / "lib/experts" / name / "adapter_config.json").read_text())
        for name in ("polite", "short", "signed-000")
    }
    assert {name: config["r"] for name, config in made.items()} == {
        "polite": 4,
        "short": 8,
        "signed-000": 4,  # its direction is no objective's alone
    }
    assert made["short"]["target_modules"] == ["lm_head"]
    soup = Library.load(tmp_path / "lib").generate(
        "prompt 1", preference={"short": 0.5, "polite": 0.5}
    )
    assert soup.text is not None
    own["adapter"]["r"] = 6
    run_file.write_text(yaml.safe_dump(content))
    assert build_library(settings_of(run_file), out=tmp_path / "lib").trained == ("short",)


@pytest.mark.parametrize("method", ["dpo", "dpo_human", "grpo"])
def test_every_method_builds(run_file, tmp_path, method):
    pairs = tmp_path / "pairs.jsonl"
    built = build_library(
        settings_of(
            run_file,
            f"training.method={method}",
            f"objectives=[{{name: polite, reward: {{pairs: {pairs}}}}}]",
            "anchors={kind: objectives}",
            "training.num_generations=4",
            "training.max_completion_length=8",
        ),
        out=tmp_path / "lib",
    )
    assert built.trained == ("polite",)
    assert built.to_json()["experts"][0]["direction"] == {"polite": 1.0}
    assert Library.load(tmp_path / "lib").bank.n_experts == 1


def start(run_file, out):
    """A build in its own process, so that it can be killed."""
    code = (
        "from pathlib import Path; import sys\n"
        "from palate.core.settings import load_settings\n"
        "from palate.build.library import build_library\n"
        "from palate.build.run_file import RunSettings\n"
        "build_library(load_settings(RunSettings, Path(sys.argv[1])), out=Path(sys.argv[2]))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "random"}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(run_file), str(out)],
        env=environment,
        stderr=subprocess.DEVNULL,
    )


def kill_when(process, is_time):
    """Kill -9 as soon as the condition holds; false when the build was done before."""
    while process.poll() is None:
        if is_time():
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.002)
    assert process.returncode == 0
    return False


def readable(folder):
    """Whatever a library shows at this moment is whole."""
    if (folder / "library.json").is_file():
        library = LibraryFolder.open(folder)
        for name in library.manifest.expert_names:
            assert (library.expert_folder(name) / PARAMETERS).is_file()


def test_a_build_killed_after_its_first_expert_ends_with_the_same_bytes(run_file, tmp_path):
    whole = tmp_path / "whole"
    build_library(settings_of(run_file), out=whole)
    killed = tmp_path / "killed"
    was_killed = kill_when(
        start(run_file, killed), (killed / "experts" / "polite" / PARAMETERS).is_file
    )
    readable(killed)
    assert was_killed
    again = build_library(settings_of(run_file), out=killed)
    assert set(again.trained) < {"polite", "short", "signed-000"} or len(again.trained) == 3
    assert parameters(killed) == parameters(whole)
    for name in ("rollouts.jsonl", "library.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert not list(killed.rglob(".*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_build_killed_at_random_moments_ends_with_the_same_bytes(run_file, tmp_path, seed):
    whole = tmp_path / "whole"
    build_library(settings_of(run_file), out=whole)
    killed = tmp_path / "killed"
    generator = np.random.default_rng(seed)
    for _ in range(4):
        begun = []

        def is_time(begun=begun):
            """A random while after the build has begun to write."""
            if not begun and killed.is_dir():
                begun.append(time.monotonic() + generator.uniform(0, 3))
            return bool(begun) and time.monotonic() > begun[0]

        if not kill_when(start(run_file, killed), is_time):
            break
        readable(killed)
    build_library(settings_of(run_file), out=killed)
    assert parameters(killed) == parameters(whole)
    assert (killed / "library.json").read_bytes() == (whole / "library.json").read_bytes()


def test_a_build_killed_while_it_scores_anew_goes_on_without_sampling(
    run_file, tmp_path, monkeypatch
):
    folder = tmp_path / "lib"
    build_library(settings_of(run_file), out=folder, only=())
    run_file.write_text(run_file.read_text().replace("high: 16", "high: 12"))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        whole = LibraryFolder.with_rollouts

        def scored(library, *, key, write):
            patched.setattr("palate.library.folder.hash_bytes", killed)
            return whole(library, key=key, write=write)

        patched.setattr(LibraryFolder, "with_rollouts", scored)
        with pytest.raises(KeyboardInterrupt):
            build_library(settings_of(run_file), out=folder, only=())
    with monkeypatch.context() as patched:
        patched.setattr("palate.engine.local.LocalEngine.generate", killed)  # nothing is sampled
        build_library(settings_of(run_file), out=folder, only=())
    build_library(settings_of(run_file), out=tmp_path / "fresh", only=())
    for name in ("rollouts.jsonl", "library.json"):
        assert (folder / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


@pytest.mark.parametrize("method", ["rebel", "spectral"])
def test_on_policy_rounds_add_the_experts_answers_and_go_on_to_the_same_bytes(
    run_file, tmp_path, method
):
    changes = ["training.n_round_prompts=2", f"training.method={method}"]
    if method == "spectral":
        changes.append("adapter.target_modules=lm_head")
    one = build_library(settings_of(run_file, *changes), out=tmp_path / "one")
    assert one.library.folder.joinpath("experts").is_dir()
    changes.append("training.n_rounds=2")
    two = build_library(settings_of(run_file, *changes), out=tmp_path / "two")
    assert parameters(tmp_path / "one") != parameters(tmp_path / "two")
    names = two.library.manifest.expert_names
    assert two.trained == (*names, *names)
    (path,) = (tmp_path / "two/cache").glob("rollouts-*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["expert"] for row in rows} == set(names)
    # stopped after the first round: the first round's experts are kept and asked
    again = build_library(settings_of(run_file, *changes), out=tmp_path / "one")
    assert again.trained == names
    assert parameters(tmp_path / "one") == parameters(tmp_path / "two")
    assert build_library(settings_of(run_file, *changes), out=tmp_path / "one").trained == ()


def test_another_base_is_refused(run_file, tmp_path):
    build_library(settings_of(run_file), out=tmp_path / "lib")
    other = save_tiny_llama(tmp_path / "other", seed=1)
    with pytest.raises(FormatError, match="belongs to the base"):
        build_library(settings_of(run_file, f"model_name_or_path={other}"), out=tmp_path / "lib")
    assert LibraryFolder.open(tmp_path / "lib").manifest.expert_names[0] == "polite"
    assert (
        load_base(other).fingerprint
        != LibraryFolder.open(tmp_path / "lib").manifest.base.fingerprint
    )


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("bases=x", "'bases' .* unknown"),
        ("training.betta=0.1", r"'training\.betta' .* unknown"),
        ("training.beta=-1", r"'training\.beta'"),
        ("training.per_device_train_batch_size=7", None),
        ("training.batch_pairs=4", "batch_pairs' .* is now called 'per_device_train_batch_size'"),
        ("objectives=[]", "'objectives'"),
        ("objectives=[{name: a, reward: {}}]", "exactly one of pairs, folder, rule, function"),
        ("objectives=[{name: a/b, reward: {rule: {kind: words}}}]", "not allowed"),
        ("report_to=paper", "'report_to'"),
    ],
)
def test_a_wrong_run_file_is_refused_in_one_sentence(run_file, override, sentence):
    if sentence is None:
        settings_of(run_file, override)
        return
    with pytest.raises(InvalidInputError, match=sentence) as caught:
        settings_of(run_file, override)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model_name_or_path=./nowhere"], "does not exist"),
        (["prompts=nowhere.jsonl"], "does not exist"),
        (["objectives=[{name: polite, reward: {pairs: nowhere.jsonl}}]"], "does not exist"),
        (["objectives=[{name: polite, reward: {folder: nowhere}}]"], "does not exist"),
        (["objectives=[{name: polite, reward: {rule: {kind: odour}}}]"], "odour"),
        (["anchors={kind: list}"], "are none"),
        (["training.method=dpo_human"], "'short' has no preference pairs"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(run_file, tmp_path, overrides, sentence):
    with pytest.raises(InvalidInputError, match=sentence) as caught:
        build_library(settings_of(run_file, *overrides), out=tmp_path / "lib")
    assert "\n" not in str(caught.value)


def test_empty_pairs_and_pairs_that_say_nothing_are_refused(run_file, tmp_path):
    (tmp_path / "pairs.jsonl").write_text("")
    with pytest.raises(InvalidInputError, match=r"pairs\.jsonl.*empty"):
        build_library(settings_of(run_file), out=tmp_path / "lib")
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": "a"}\n')
    with pytest.raises(InvalidInputError, match="chosen"):
        build_library(settings_of(run_file), out=tmp_path / "lib2")


def test_experts_that_other_settings_make_again_are_named_with_what_changed(
    run_file, tmp_path, capsys
):
    build_library(settings_of(run_file), out=tmp_path / "lib")
    build_library(settings_of(run_file), out=tmp_path / "lib")
    assert "made otherwise" not in capsys.readouterr().err
    changed = settings_of(run_file, "training.max_steps=4")
    names = build_library(changed, out=tmp_path / "lib").trained
    said = capsys.readouterr().err
    before = settings_of(run_file).training.max_steps
    assert f"{len(names)} experts made otherwise (training.max_steps {before}, now 4)" in said
    assert f"needed: {', '.join(names)}." in said


def test_no_more_than_three_changes_are_named():
    settings = {"training": {"max_steps": 1, "seed": 2, "rank": 3, "beta": 4}, "seed": 5}
    others = {"training": {"max_steps": 9, "seed": 9, "rank": 9, "beta": 9}, "seed": 5}
    base = BaseRecord("b", None, "f", "t")
    record = ExpertRecord(Anchor("kind", ("kind",), (1.0,)), key="k", files={})
    before, after = (
        Manifest(base, (Objective("kind"),), beta=0.1, seed=0, config=config)
        for config in (settings, others)
    )
    (sentence,) = dropped_experts_note(replace(before, experts=(record,)), after)
    assert sentence == (
        "1 expert made otherwise (training.beta 4, now 9; training.max_steps 1, now 9; "
        "training.rank 3, now 9; and 1 more) will be made again where they are needed: kind."
    )
    assert dropped_experts_note(before, after) == []


def test_a_change_of_an_objective_is_named_by_the_objective_and_its_key():
    base = BaseRecord("b", None, "f", "t")
    record = ExpertRecord(Anchor("kind", ("kind",), (1.0,)), key="k", files={})
    rows = [{"name": "kind", "expert": {"training": {"method": method}}} for method in "ab"]
    rows[1]["phrases"] = ""  # a key that an older library does not have says nothing
    before, after = (
        Manifest(base, (Objective("kind"),), beta=0.1, seed=0, config={"objectives": [row]})
        for row in rows
    )
    (sentence,) = dropped_experts_note(replace(before, experts=(record,)), after)
    assert "(objectives.kind.expert.training.method 'a', now 'b')" in sentence


def test_phrases_are_entered_and_nothing_is_trained_for_them(run_file, tmp_path, capsys):
    settings = settings_of(run_file)
    build_library(settings, out=tmp_path / "lib")
    said = [one.model_copy(update={"phrases": "gently; with care"}) for one in settings.objectives]
    again = settings.model_copy(update={"objectives": tuple(said)})
    built = build_library(again, out=tmp_path / "lib")
    assert built.trained == ()
    assert "made otherwise" not in capsys.readouterr().err
    manifest = LibraryFolder.open(tmp_path / "lib").manifest
    assert {one.phrases for one in manifest.objectives} == {"gently; with care"}


def test_prompts_are_read_once_each_and_a_file_without_them_is_refused(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "a"}\n')
    assert read_prompts(path) == ("a", "b")
    path.write_text('{"question": "a"}\n')
    with pytest.raises(InvalidInputError, match="Line 1"):
        read_prompts(path)
    path.write_text("")
    with pytest.raises(InvalidInputError, match="empty"):
        read_prompts(path)
    path.write_text('{"prompt": "a"}\n{"prompt": [{"role": "robot", "content": "b"}]}\n')
    with pytest.raises(InvalidInputError, match=r"Line 2 .* without a role"):
        read_prompts(path)


TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.mark.parametrize("method", ["rebel", "grpo"])
def test_conversations_are_read_as_real_turns_in_every_part_of_a_build(
    run_file, tmp_path, monkeypatch, method
):
    (tmp_path / "base/chat_template.jinja").write_text(TEMPLATE)
    talks = [
        [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": f"Number {k}"},
            {"role": "assistant", "content": "Yes?"},
            {"role": "user", "content": "Why?"},
        ]
        for k in range(12)
    ]
    path, held_back = tmp_path / "talks.jsonl", tmp_path / "held_back.jsonl"
    lines = [json.dumps({"prompt": talk}) + "\n" for talk in talks]
    path.write_text("".join(lines))
    held_back.write_text("".join(lines[4:]))
    read = []
    tokenize = PreTrainedTokenizerFast.__call__

    def spied(self, text=None, *args, **options):
        read.extend([text] if isinstance(text, str) else text or [])
        return tokenize(self, text, *args, **options)

    monkeypatch.setattr(PreTrainedTokenizerFast, "__call__", spied)
    settings = settings_of(
        run_file,
        f"prompts={path}",
        f"calibration.prompts={held_back}",
        "calibration.n_prompts=8",
        "calibration.max_points=3",
        "calibration.methods=[prompt, soup]",
        "anchors={kind: objectives}",
        f"training.method={method}",
        "training.num_generations=4",
        "training.max_completion_length=8",
    )
    build_library(settings, out=tmp_path / "lib")
    measure_library(settings, out=tmp_path / "lib")
    library = Library.load(tmp_path / "lib")
    served = [library.format(talk) for talk in talks]
    assert served[3] == "<system>Be kind.<user>Number 3<assistant>Yes?<user>Why?<assistant>"
    assert set(served) <= set(read)
    assert [text for text in read if "Human:" in text or "System:" in text] == []


def test_a_tracker_that_is_not_installed_is_named_before_any_work(run_file, tmp_path):
    with pytest.raises(MissingExtraError, match="trackio"):
        build_library(settings_of(run_file, "report_to=trackio"), out=tmp_path / "lib")
    assert not (tmp_path / "lib").exists()


def test_a_split_keeps_groups_on_one_side(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": f"p{i % 25}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(100)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train, validation = split_groups(read_pairs(path, objective="good"))
    assert len(set(validation.groups)) == 12
    assert not set(train.groups) & set(validation.groups)
    assert len(train) + len(validation) == 100


def test_what_taught_the_opposite_judges_neither(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"p{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = split_groups(read_pairs(path, objective="kind"))
    swapped = split_groups(read_pairs(path, objective="rude", is_swapped=True))
    for mine, other in zip(own, swapped, strict=True):
        assert mine.prompts == other.prompts
        assert mine.chosen == other.rejected


def first_letter(prompts, completions, **columns):
    return [float(ord((text or " ")[0])) for text in completions]


def test_a_run_file_may_name_a_function_and_hold_its_prompts(run_file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "letters", sys.modules[__name__])
    rewards = [{"name": "starts", "reward": {"function": "letters:first_letter"}}]
    prompts = [f"prompt {k}" for k in range(6)]
    settings = settings_of(
        run_file, f"objectives={json.dumps(rewards)}", f"prompts={json.dumps(prompts)}"
    )
    built = build_library(settings, out=tmp_path / "lib")
    assert built.library.reward_funcs["starts"] is first_letter
    rows = read_rollouts(built.library.rollouts_path, objectives=["starts"])
    assert {row.prompt for row in rows} == set(prompts)
    with pytest.raises(InvalidInputError, match="has a reward in the run file and a function"):
        build_library(settings, out=tmp_path / "l", reward_funcs={"starts": first_letter})


def test_a_function_that_cannot_be_imported_is_refused(run_file, tmp_path):
    settings = settings_of(run_file, "objectives=[{name: x, reward: {function: 'no.module:f'}}]")
    with pytest.raises(InvalidInputError, match=r"'no\.module:f' cannot be imported"):
        build_library(settings, out=tmp_path / "lib")


def test_a_library_stores_what_the_dtype_auto_came_to(run_file, tmp_path, monkeypatch):
    monkeypatch.setattr("palate.models.load.faster_dtype", lambda *_: "bfloat16")
    builder = open_builder(settings_of(run_file, "dtype=auto"), out=tmp_path / "library")
    assert builder.base.dtype == "bfloat16"
    assert builder.library.manifest.config["dtype"] == "bfloat16"
