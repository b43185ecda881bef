"""Run files: keys as in TRL, and those that libraries of earlier versions store."""

import pytest

from palate.build.run_file import RunSettings, stored_run
from palate.core.errors import InvalidInputError

EARLIER = {
    "base": "models/one",
    "prompts": "prompts.jsonl",
    "objectives": [
        {
            "name": "brief",
            "reward": {"pairs": "brief.jsonl", "trunk": "bert", "trunk_settings": ["epochs=2"]},
        },
        {"name": "plain", "reward": {"folder": "plain", "annotators": None}},
    ],
    "rollouts": {"n_completions": 3, "max_tokens": 9},
    "adapter": {"rank": 4, "is_rslora": True, "placement": "head"},
    "training": {"n_steps": 7, "batch_pairs": 12, "accumulate": 3, "warmup_fraction": 0.2},
    "portfolio": None,
}


def test_a_run_file_of_an_earlier_version_is_migrated_when_it_is_loaded() -> None:
    run = stored_run(EARLIER)
    assert run.model_name_or_path == "models/one"
    assert (run.rollouts.num_generations, run.rollouts.max_completion_length) == (3, 9)
    assert (run.adapter.r, run.adapter.use_rslora, run.adapter.target_modules) == (
        4,
        True,
        "lm_head",
    )
    training = run.training
    assert (training.max_steps, training.warmup_ratio) == (7, 0.2)
    # a step had 12 pairs in 3 passes
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (4, 3)
    brief = run.objectives[0].reward
    assert brief is not None
    assert brief.trunk_settings == ("num_train_epochs=2",)


def test_the_step_of_grpo_has_as_many_answers_as_before() -> None:
    earlier = {"method": "grpo", "batch_pairs": 8, "accumulate": 2}  # 16 answers a step
    training = stored_run({**EARLIER, "training": earlier}).training
    assert training.per_device_train_batch_size * training.gradient_accumulation_steps == 16


def test_a_present_run_file_is_stored_and_loaded_unchanged() -> None:
    run = stored_run(EARLIER)
    assert stored_run(run.model_dump(mode="json")) == run
    assert stored_run(run.model_dump(mode="json"), overrides=["seed=5"]).seed == 5


def test_every_text_and_number_of_a_stored_run_file_comes_back_as_it_is() -> None:
    prompts = ("a\x85b", "a \u2028 b", "\x92", "\x7f", "1e-05", "no")
    rule = {"kind": "length", "low": 1e-05, "high": 3, "prefer": "longer"}
    objectives = [{"name": "a", "description": "\ufeff\x01", "reward": {"rule": rule}}]
    run = stored_run({"model_name_or_path": "b", "prompts": prompts, "objectives": objectives})
    assert run.prompts == prompts
    assert run.objectives[0].reward is not None
    assert run.objectives[0].reward.rule == rule
    stored = run.model_dump(mode="json")
    assert stored_run(stored) == run
    assert stored_run(stored, overrides=["training.max_steps=3"]).training.max_steps == 3
    assert stored == run.model_dump(mode="json")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"base": "b"}, "'base' in run.yaml is now called 'model_name_or_path'"),
        ({"training": {"n_steps": 3}}, "'training.n_steps' .* now called 'max_steps'"),
        ({"adapter": {"rank": 3}}, "'adapter.rank' .* now called 'r'"),
        ({"rollouts": {"max_tokens": 3}}, "'rollouts.max_tokens' .* 'max_completion_length'"),
        (
            {
                "objectives": [{"name": "a", "expert": {"training": {"method": "spectral"}}}],
                "adapter": {"target_modules": "all-linear"},
            },
            "set adapter.target_modules to lm_head, not 'all-linear'",
        ),
        (
            {"objectives": [{"name": "a", "expert": {"training": {"beta": 0.2}}}]},
            "beta is one for all experts: 0.1, not 0.2",
        ),
        ({"objectives": [{"name": "base"}]}, "objective name 'base' is the base's own"),
        ({"calibration": {"methods": ["soup", "soups"]}}, "'soups' is not measured; use any of"),
        ({"calibration": {"methods": ["best-of-n@8"]}}, "'best-of-n@8' is not measured"),
        ({"adapter": {"target_modules": "head"}}, "use all-linear, lm_head, top_no_kv or a list"),
    ],
)
def test_an_earlier_key_is_refused_with_its_present_name(
    values: dict[str, object], sentence: str
) -> None:
    run = {"model_name_or_path": "b", "prompts": "p.jsonl", "objectives": [{"name": "a"}]}
    with pytest.raises(InvalidInputError, match=sentence):
        RunSettings.checked({**run, **values}, source="run.yaml")
