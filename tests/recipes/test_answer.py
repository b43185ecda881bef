"""Answers and scores from a library on disk."""

import json
from pathlib import Path

import pytest
import torch

from fakes import save_tiny_llama
from palate.core.errors import FormatError, InvalidInputError
from palate.core.protocols import Sampling
from palate.recipes.answer import answer, score_file
from palate.recipes.opened import Opened, open_for_scoring, open_library
from palate.recipes.ways import Asked, choose

TASTE = {"kind": 0.5, "short": 0.5}


@pytest.fixture(scope="module")
def opened(tiny_library: Path) -> Opened:
    return open_library(tiny_library)


def test_the_same_seed_gives_the_same_answers_and_n_answers_differ(opened: Opened) -> None:
    asked = Asked("output-soup", preference=TASTE)
    first, again = (
        answer(opened, "Why?", asked, sampling=Sampling(max_tokens=12), n=3, seed=4)
        for _ in range(2)
    )
    assert [c.tokens for c in first.completions] == [c.tokens for c in again.completions]
    assert len({c.tokens for c in first.completions}) == 3


def test_scores_are_the_log_probabilities_of_the_merged_model(
    opened: Opened, tiny_library: Path, tmp_path: Path
) -> None:
    rows = [{"prompt": "Why?", "completion": " So.", "id": 7}, {"prompt": "Why?", "answer": " No"}]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = choose(opened.library.manifest, Asked("soup", preference=TASTE))
    found = score_file(opened.base, opened.bank, path, chosen=chosen)
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
    assert found.n_tokens == sum(row["n_tokens"] for row in found.rows)


def test_a_bare_base_is_scored_without_experts(opened: Opened, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"prompt": "Why?", "completion": " So."}\n')
    base, bank, manifest = open_for_scoring(Path(opened.base.path))
    bare = score_file(base, bank, path, chosen=choose(manifest, Asked()))
    reference = choose(opened.library.manifest, Asked("base"))
    with_library = score_file(opened.base, opened.bank, path, chosen=reference)
    assert bare.total == pytest.approx(with_library.total, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "is empty"), ('{"prompt": "Why?"}\n', "Row 1"), ("{nonsense\n", "Line 1")],
)
def test_bad_files_are_named(opened: Opened, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(text)
    chosen = choose(opened.library.manifest, Asked("base"))
    with pytest.raises(InvalidInputError, match=words):
        score_file(opened.base, opened.bank, path, chosen=chosen)


def test_another_base_is_refused_naming_both(tiny_library: Path, tmp_path: Path) -> None:
    other = save_tiny_llama(tmp_path / "other", seed=1)
    with pytest.raises(FormatError, match="belongs to the base"):
        open_library(tiny_library, base=str(other))
    with pytest.raises(InvalidInputError, match="does not exist"):
        open_library(tiny_library, base=str(tmp_path / "nowhere"))


def test_no_answers_are_refused(opened: Opened) -> None:
    with pytest.raises(InvalidInputError, match="at least one"):
        answer(opened, "Why?", Asked("base"), sampling=Sampling(), n=0)
