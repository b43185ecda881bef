"""`palate.build` with rewards that are functions: built, opened again, built again, refused."""

from pathlib import Path

import pytest
import yaml

import palate
from documents import write_story
from palate.build.run_file import RunSettings
from palate.core.files import read_json
from palate.core.settings import load_settings


def brief(prompts, completions, **columns):
    return [-float(len(completion)) for completion in completions]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    write_story(folder)
    return folder


@pytest.fixture(scope="module")
def built(story: Path) -> palate.Library:
    return palate.build(
        story / "brief.yaml", output_dir=story / "library", reward_funcs={"brief": brief}
    )


def test_a_function_teaches_an_expert_and_its_address_is_kept(built: palate.Library) -> None:
    assert built.manifest.expert_names == ("brief", "polite")
    content = read_json(built.files.reward_folder("brief") / "function.json")
    assert content["kind"] == "palate-reward-function"
    assert content["function"] is None or content["function"].endswith(":brief")
    short, long = built.rewards.score(["p", "p"], ["a", "a" * 30])[:, 0]
    assert 0 <= long < short <= 1
    output = built.generate("Why?", preference={"brief": 1.0}, n_candidates=2)
    assert isinstance(output, palate.Output)
    assert output.decision.n_candidates == 2


def test_a_function_without_an_address_must_be_given_again(
    story: Path, built: palate.Library
) -> None:
    def local(prompts, completions):
        return [-float(len(completion)) for completion in completions]

    folder = story / "local"
    palate.build(
        story / "brief.yaml",
        output_dir=folder,
        reward_funcs={"brief": local},
        overrides=["training.max_steps=1"],
    )
    opened = palate.Library.load(folder)
    with pytest.raises(palate.FormatError, match=r"reward_funcs=\{'brief': function\}"):
        opened.rewards  # noqa: B018  reading it is what is tested
    given = palate.Library.load(folder, reward_funcs={"brief": local})
    assert given.rewards.objectives == ("brief", "polite")
    with pytest.raises(palate.InvalidInputError, match="unknown objective 'odd'"):
        palate.Library.load(folder, reward_funcs={"odd": local})


def test_building_again_trains_nothing_and_other_code_trains_anew(
    story: Path, built: palate.Library
) -> None:
    def key_of(library: palate.Library) -> str:
        return library.manifest.rewards["brief"].key

    before = [record.key for record in built.manifest.experts]
    again = palate.build(
        story / "brief.yaml", output_dir=built.files.folder, reward_funcs={"brief": brief}
    )
    assert [record.key for record in again.manifest.experts] == before

    def other(prompts, completions):
        return [float(len(completion)) for completion in completions]

    changed = palate.build(
        story / "brief.yaml", output_dir=story / "other", reward_funcs={"brief": other}
    )
    assert key_of(changed) != key_of(built)


def test_a_run_can_be_a_mapping_or_settings_and_take_overrides(story: Path) -> None:
    from palate.build.library import _run_settings

    path = story / "brief.yaml"
    mapping = yaml.safe_load(path.read_text())
    wanted = load_settings(RunSettings, path, overrides=["training.max_steps=1"])
    for run in (path, str(path), mapping, RunSettings.checked(mapping, source="test")):
        assert _run_settings(run, overrides=["training.max_steps=1"]) == wanted
    with pytest.raises(palate.InvalidInputError, match="'odd'"):
        _run_settings({**mapping, "odd": 1}, overrides=[])


@pytest.mark.parametrize(
    ("functions", "sentence"),
    [
        ({}, "'brief' has no reward"),
        ({"brief": brief, "odd": brief}, "unknown objective 'odd'"),
        ({"brief": brief, "polite": brief}, "'polite' has a reward in the run file and a function"),
        ({"brief": 3}, "'brief' is a int"),
        ({"brief": lambda prompts, completions: [1.0]}, "gave 1 values for 24 completions"),
        (
            {"brief": lambda prompts, completions: [float("nan")] * len(completions)},
            "'brief' gave 'nan' for completion 0",
        ),
    ],
)
def test_exactly_one_source_for_each_objective_or_one_sentence(
    story: Path, tmp_path: Path, functions, sentence
) -> None:
    with pytest.raises(palate.InvalidInputError, match=sentence) as caught:
        palate.build(story / "brief.yaml", output_dir=tmp_path / "lib", reward_funcs=functions)
    assert "\n" not in str(caught.value)
