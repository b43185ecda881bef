"""Answers and scores from a library on disk."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fakes import save_tiny_llama
from palate.core.decision import Known
from palate.core.errors import FormatError, InvalidInputError
from palate.core.protocols import SamplingParams
from palate.core.types import Belief
from palate.engine.forced import plan_log_probs
from palate.engine.logprobs import Scored
from palate.library.generate import answer_seed, conversations, generate_all, score_file
from palate.library.library import Library
from palate.models.chat import encode_prompt, token_ids, without_special_tokens

TASTE = {"kind": 0.5, "short": 0.5}


@pytest.fixture(scope="module")
def opened(tiny_library: Path) -> Library:
    return Library.load(tiny_library)


def test_the_same_seed_gives_the_same_answers_and_n_answers_differ(opened: Library) -> None:
    decision = opened.decide("Why?", Known(preference=TASTE), method="output-soup")
    seeds = [answer_seed(4, place=place) for place in range(3)]
    first, again = (
        generate_all(opened, [decision] * 3, sampling=SamplingParams(max_tokens=12), seeds=seeds)
        for _ in range(2)
    )
    assert [c.completion.tokens for c in first] == [c.completion.tokens for c in again]
    assert len({c.completion.tokens for c in first}) == 3


def test_own_words_that_ask_for_something_rank_candidates(
    opened: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def believed(prior: Belief) -> Belief:
        return replace(prior, mean=prior.mean + 1.0, n_observations=1)

    reading = SimpleNamespace(belief=believed)
    monkeypatch.setattr("palate.library.words._asking", lambda _library, _text: reading)
    known = Known(instruction="Be short.")
    assert opened.decide("Why?", known, n_candidates=2).n_candidates == 2
    with pytest.raises(InvalidInputError, match="preference, coefficients or feedback"):
        opened.decide("Why?", known, method="prompt", n_candidates=2)  # which reads no words


def test_half_a_character_is_read_as_a_question_mark(opened: Library) -> None:
    assert token_ids(opened.base, "a\ud800b") == token_ids(opened.base, "a?b")
    assert without_special_tokens(opened.base, "a\ud800b") == "a?b"


def test_a_batch_answers_every_prompt_as_alone(opened: Library) -> None:
    options = {"preference": TASTE, "method": "soup", "sampling": SamplingParams(max_tokens=8)}
    talk = [{"role": "user", "content": "a b"}]
    batch = opened.generate(["Why?", talk], seed=2, **options)
    assert [one.text for one in batch] == [
        opened.generate("Why?", seed=2, **options).text,
        opened.generate(talk, seed=2, **options).text,
    ]


def test_decisions_of_several_users_are_answered_in_one_batch_as_alone(opened: Library) -> None:
    users = ({"preference": TASTE}, {"preference": {"plain": 1.0}}, {"coefficients": {"kind": 0.5}})
    short = SamplingParams(max_tokens=8)
    decisions = [opened.decide("Why?", Known(**one), method="soup") for one in users]
    outputs = opened.execute(decisions, seeds=[2, 3, 3], sampling=short)
    alone = [
        opened.generate("Why?", seed=seed, sampling=short, method="soup", **one)
        for one, seed in zip(users, (2, 3, 3), strict=True)
    ]
    assert [one.text for one in outputs] == [one.text for one in alone]
    own = opened.execute(decisions[:1], seeds=[2])[0].completion  # sampled as the library says
    assert own == opened.generate("Why?", seed=2, method="soup", **users[0]).completion
    assert opened.execute([], seeds=[]) == []


def test_answers_are_sampled_at_the_temperature_that_the_library_was_measured_at(
    tiny_library: Path,
) -> None:
    cold = Library.load(tiny_library)
    config = dict(cold.manifest.config)
    calibration = {**dict(config.get("calibration") or {}), "temperature": 0.4}
    manifest = replace(cold.manifest, config={**config, "calibration": calibration})
    cold.files = replace(cold.files, manifest=manifest)
    assert cold.sampling.temperature == 0.4
    own = cold.generate("Why?", seed=2).completion
    asked = {t: SamplingParams(temperature=t) for t in (0.4, 1.0)}
    assert own == cold.generate("Why?", seed=2, sampling=asked[0.4]).completion
    assert own != cold.generate("Why?", seed=2, sampling=asked[1.0]).completion


def test_a_string_and_a_list_of_messages_are_one_conversation() -> None:
    talk = [{"role": "user", "content": "a"}]
    assert conversations("a") == (["a"], True)
    assert conversations(talk) == ([talk], True)
    assert conversations(["a", talk]) == (["a", talk], False)
    with pytest.raises(InvalidInputError, match="no prompts"):
        conversations([])


def test_scores_are_the_log_probabilities_of_the_merged_model(
    opened: Library, tiny_library: Path, tmp_path: Path
) -> None:
    rows = [{"prompt": "Why?", "completion": " So.", "id": 7}, {"prompt": "Why?", "answer": " No"}]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = score_file(opened, path, known=Known(preference=TASTE), method="soup")
    tokenizer = opened.base.tokenizer
    for row, scored in zip(rows, found.rows, strict=True):
        text = row.get("completion", row.get("answer"))
        context = tokenizer(row["prompt"])["input_ids"]
        ids = tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]
        with torch.no_grad(), opened.bank.applied([[0.5, 0.5, 0.0]]):
            logits = opened.base.model(torch.tensor([context + ids])).logits[0]
        expected = torch.log_softmax(logits, -1)[len(context) - 1 : -1]
        expected = expected.gather(1, torch.tensor(ids).unsqueeze(1)).squeeze(1)
        assert torch.allclose(torch.tensor(scored["log_probs"]), expected, atol=1e-5)
        assert scored["log_prob"] == pytest.approx(expected.sum().item(), abs=1e-4)
    assert found.rows[0]["id"] == 7
    assert found.to_json()["n_tokens"] == sum(row["n_tokens"] for row in found.rows)


def test_a_bare_base_is_scored_without_experts(opened: Library, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"prompt": "Why?", "completion": " So."}\n')
    bare = score_file(Library.load(opened.base.path), path)
    with_library = score_file(opened, path, method="base")
    assert bare.to_json()["log_prob"] == pytest.approx(with_library.to_json()["log_prob"], abs=1e-6)


def test_a_controlled_mixture_is_scored_with_its_own_shares(tiny_full_library: Path) -> None:
    """The answer's probability is what sampling it said."""
    library = Library.load(tiny_full_library)
    output = library.generate(
        "a b", preference=TASTE, method="mixture", sampling=SamplingParams(max_tokens=6), seed=1
    )
    decision = output.decision
    context = tuple(encode_prompt(library.base, library.format(decision.messages)))
    found = plan_log_probs(
        library.base,
        library.bank,
        plan=decision.plan,
        item=Scored(context, output.completion.tokens),
        controllers=library.controllers,
    )
    assert found.tolist() == pytest.approx(output.completion.log_probs, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "is empty"), ('{"prompt": "Why?"}\n', "Line 1"), ("{nonsense\n", "Line 1")],
)
def test_bad_files_are_named(opened: Library, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=words):
        score_file(opened, path, method="base")


def test_another_base_is_refused_naming_both(tiny_library: Path, tmp_path: Path) -> None:
    other = save_tiny_llama(tmp_path / "other", seed=1)
    with pytest.raises(FormatError, match="belongs to the base"):
        Library.load(tiny_library, base=str(other))
    with pytest.raises(InvalidInputError, match="does not exist"):
        Library.load(tiny_library, base=str(tmp_path / "nowhere"))


def test_conversations_of_a_file_are_scored_as_they_are_served(
    opened: Library, tmp_path: Path
) -> None:
    talk = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]
    rows = [
        {"prompt": talk, "answer": " So."},
        {"prompt": talk, "completion": [{"role": "assistant", "content": " So."}]},
    ]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scored = score_file(opened, path, method="base").rows
    served = opened.score(talk, " So.", method="base")
    assert [row["log_prob"] for row in scored] == pytest.approx([served.log_prob] * 2)
    assert [sorted(row)[:2] for row in scored] == [
        ["answer", "log_prob"],
        ["completion", "log_prob"],
    ]
