"""Where rewards come from, without building a library around them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from judge_server import serving
from palate.build import reward_sources
from palate.build.reward_sources import add_reward, require_sources
from palate.build.run_file import ObjectiveSettings, RewardSource
from palate.core.errors import InvalidInputError
from palate.core.files import hash_value
from palate.core.types import BaseRecord, Objective
from palate.library.folder import LibraryFolder
from palate.library.manifest import Manifest
from palate.library.rewards import held_back_rewards, library_rewards
from palate.rewards.card import load_card
from palate.rewards.functions import FILE, identity_of
from palate.training.rollouts import Rollout
from rewards.test_embedding import save_tiny_encoder
from rewards.test_finished import save_tiny_classifier

ANSWERS = [
    Rollout(f"about {k}", f"please {'go away ' * (k % 3)}{k}", (1,), -1.0, (), "stop")
    for k in range(8)
]


RULE = {"kind": "readability"}


def objective(**source: object) -> ObjectiveSettings:
    return ObjectiveSettings(name="kind", reward=RewardSource.checked(source, source="the test"))


def empty_library(folder: Path) -> LibraryFolder:
    base = BaseRecord("base", None, "hash", "hash")
    return LibraryFolder.create(
        folder, Manifest(base, (Objective("kind"),), beta=0.1, seed=0, config={})
    )


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    rows = [
        {"prompt": f"about {k}", "chosen": f"please and thanks {k}", "rejected": f"go away {k}"}
        for k in range(60)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_reward_held_back_may_be_of_another_trunk(pairs: str, tmp_path: Path) -> None:
    encoder = save_tiny_encoder(tmp_path / "encoder")
    wanted = objective(pairs=pairs, trunk_settings=["ridge=1"], judge_trunk=f"embedding:{encoder}")
    library = add_reward(empty_library(tmp_path / "lib"), wanted, ANSWERS, seed=0)
    folder = library.reward_folder("kind")
    teacher, judge = load_card(folder), load_card(folder / "held_back")
    assert (teacher.trunk, judge.trunk) == ("light", "embedding")
    assert (teacher.selected, teacher.settings["ridge"]) == ({"ridge": 1.0}, 1.0)
    assert judge.settings["ridge"] is None
    assert (teacher.train.hash, teacher.validation.hash) == (
        judge.validation.hash,
        judge.train.hash,
    )
    assert held_back_rewards(library)[1] == ()
    texts = ["about 1"], ["please and thanks"]
    assert library_rewards(library).score(*texts) != held_back_rewards(library)[0].score(*texts)


def test_keys_that_are_not_set_leave_the_hash_of_a_reward_as_it_was() -> None:
    rule = {"kind": "readability"}
    fields = {"rule": rule, "function": None, "trunk": "light", "trunk_settings": []}
    earlier = {**fields, "group_by": None, "is_swapped": False, "scale": "logistic"}
    key = hash_value({"objective": "kind", "source": earlier})
    assert reward_sources._key(objective(rule=rule), ANSWERS, seed=0) == key


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"rule": RULE, "judge_trunk": "light"}, "judge_trunk needs pairs"),
        ({"rule": RULE, "scale": "clip"}, "a rule has its own scale"),
        ({"folder": "kind", "is_swapped": True}, "is_swapped needs pairs, but .* is of folder"),
        ({"folder": "kind", "trunk": "bert"}, "trunk needs pairs"),
        ({"model": "kind", "validation": "kind.jsonl"}, "validation needs pairs"),
        ({"function": "a:b", "group_by": "user"}, "group_by needs pairs"),
        ({"function": "a:b", "trunk_settings": ["ridge=1"]}, "trunk_settings needs pairs"),
    ],
)
def test_a_key_that_the_source_would_ignore_is_refused(
    source: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        objective(**source)
    plain = {name: source[name] for name in list(source)[:1]}
    stored = objective(**plain).model_dump(mode="json")["reward"]  # with every default
    assert RewardSource.checked(stored, source="the test") == objective(**plain).reward


def test_a_function_has_the_scale_asked_for_and_a_key_of_its_own_with_it(tmp_path: Path) -> None:
    def long(prompts: list[str], completions: list[str], **_: object) -> list[float]:
        del prompts
        return [float(len(text)) for text in completions]

    kinds, keys = [], []
    for scale in ({}, {"scale": "logistic"}, {"scale": "clip"}):
        library = empty_library(tmp_path / f"lib{len(keys)}")
        library = replace(library, reward_funcs={"kind": long})
        wanted = objective(function="module:long", **scale)
        library = add_reward(library, wanted, ANSWERS, seed=0)
        kinds.append(json.loads((library.reward_folder("kind") / FILE).read_text())["scale"])
        keys.append(library.manifest.rewards["kind"].key)
    assert [scale["kind"] for scale in kinds] == ["logistic", "logistic", "clip"]
    facts = {"function": identity_of(long), "answers": reward_sources._hash(ANSWERS)}
    assert keys[:2] == [hash_value({"objective": "kind", **facts})] * 2  # as before
    assert keys[2] != keys[0]


def test_the_content_of_a_local_trunk_is_part_of_the_key(pairs: str, tmp_path: Path) -> None:
    encoder = save_tiny_encoder(tmp_path / "encoder")
    judged = objective(pairs=pairs, judge_trunk=f"embedding:{encoder}")
    taught = objective(pairs=pairs, trunk=str(encoder))
    plain = objective(pairs=pairs)
    before = [reward_sources._key(one, ANSWERS, seed=0) for one in (judged, taught, plain)]
    (encoder / "config.json").write_text((encoder / "config.json").read_text() + " ")
    after = [reward_sources._key(one, ANSWERS, seed=0) for one in (judged, taught, plain)]
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, False, True]


def test_a_finished_model_is_a_reward_on_the_scale_of_the_base(tmp_path: Path) -> None:
    wanted = objective(model=str(save_tiny_classifier(tmp_path / "model")))
    require_sources([wanted], functions={})
    library = add_reward(empty_library(tmp_path / "lib"), wanted, ANSWERS, seed=0)
    prompts, texts = [row.prompt for row in ANSWERS], [row.completion for row in ANSWERS]
    scores = library_rewards(library).score(prompts, texts)
    assert scores.shape == (8, 1)
    assert scores.mean() == pytest.approx(0.5, abs=0.1)
    assert held_back_rewards(library)[1] == ("kind",)
    key = library.manifest.rewards["kind"].key
    assert add_reward(library, wanted, ANSWERS, seed=0).manifest.rewards["kind"].key == key
    save_tiny_classifier(tmp_path / "model", seed=1)
    assert add_reward(library, wanted, ANSWERS, seed=0).manifest.rewards["kind"].key != key


def test_a_judge_that_grades_is_a_reward(tmp_path: Path) -> None:
    with serving(lambda answer, _second: str(min(10, len(answer.split())))) as server:
        judge = {"base_url": server.url, "model": "m", "criterion": "Long."}
        judge = {**judge, "max_requests": 8, "cache": tmp_path / "grades.jsonl"}
        library = add_reward(
            empty_library(tmp_path / "lib"), objective(judge=judge), ANSWERS, seed=0
        )
        moved = objective(judge={**judge, "base_url": "http://other/v1", "max_requests": 9})
        assert add_reward(library, moved, ANSWERS, seed=0) is library
        short, long = library_rewards(library).score(
            ["about 0", "about 2"], [ANSWERS[0].completion, ANSWERS[2].completion]
        )
        assert long > short
        assert len(server.questions) == 8
