"""What the lm-evaluation-harness asks of a model, against teacher forcing and plain decoding."""

import numpy as np
import pytest

from benchmarks.harness.library import HarnessModel, sampling_of, windows
from palate.core.decision import Known
from palate.core.plan import output_soup_plan, reference_plan
from palate.core.protocols import SamplingParams
from palate.engine.logprobs import Scored, answer_log_probs
from palate.library.library import Library
from palate.models.chat import encode_prompt

PLAN = output_soup_plan((0.8, -0.5, 0.6))
KNOWN = Known(coefficients={"kind": 0.8, "short": -0.5, "plain": 0.6})


@pytest.fixture(scope="module")
def opened(tiny_library):
    return Library.load(tiny_library)


@pytest.fixture(scope="module")
def model(opened):
    return HarnessModel(opened, KNOWN, "output-soup")


def ids(opened, text):
    return tuple(opened.base.tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_continuation_has_the_probability_of_its_tokens(opened, model):
    context = tuple(encode_prompt(opened.base, "a b"))
    for answer in (" c", " c d e"):
        whole = tuple(encode_prompt(opened.base, "a b" + answer))
        assert whole[: len(context)] == context
        item = Scored(context, whole[len(context) :])
        expected = answer_log_probs(opened.base, opened.bank, plans=[PLAN], items=[item])[0]
        found, _ = model.log_likelihood("a b", answer)
        assert found == pytest.approx(float(expected.sum()), abs=1e-4)
        assert model.log_likelihood("a b ", answer.lstrip())[0] == pytest.approx(found, abs=1e-6)


def test_greedy_is_what_greedy_decoding_gives_and_nothing_else(opened, model):
    text = model.generate([("a b", {"max_gen_toks": 3})])[0]
    assert text
    assert model.log_likelihood("a b", text)[1]
    others = [word for word in (" c", " d", " e") if not text.startswith(word)]
    assert not any(model.log_likelihood("a b", word)[1] for word in others)


def test_a_context_that_is_empty_begins_at_the_prefix(opened, model):
    item = Scored((model.prefix,), ids(opened, "a b"))
    expected = answer_log_probs(opened.base, opened.bank, plans=[PLAN], items=[item])[0]
    assert model.log_likelihood("", "a b")[0] == pytest.approx(float(expected.sum()), abs=1e-4)
    assert model.rolling("a b") == pytest.approx(float(expected.sum()), abs=1e-4)
    assert model.log_likelihood("a", "") == (0.0, True)


def test_a_text_longer_than_the_base_is_scored_in_windows(opened, model, monkeypatch):
    monkeypatch.setattr(HarnessModel, "max_tokens", property(lambda _: 5))
    text = "a b c d e f g h i"
    tokens = (model.prefix, *ids(opened, text))
    # windows of four tokens read: 0-3 give 1-4, 4-7 give 5-8, and the last as much as fits
    total = 0.0
    for start, first, end in windows(len(tokens), size=4):
        item = Scored(tokens[start:first], tokens[first:end])
        found = answer_log_probs(opened.base, opened.bank, plans=[PLAN], items=[item])[0]
        total += float(found.sum())
    assert model.rolling(text) == pytest.approx(total, abs=1e-4)
    whole = Scored(tokens[:1], tokens[1:])
    full = answer_log_probs(opened.base, opened.bank, plans=[PLAN], items=[whole])[0]
    assert abs(model.rolling(text) - float(full.sum())) > 1e-3  # what was cut off mattered


def test_every_token_is_scored_once_and_no_window_reads_too_much():
    for n_tokens in range(1, 40):
        for size in range(1, 12):
            found = windows(n_tokens, size=size)
            scored = [place for _, first, end in found for place in range(first, end)]
            assert scored == list(range(1, n_tokens))
            assert all(
                0 <= start < first and end - 1 - start <= size for start, first, end in found
            )


def test_settings_of_a_task_become_ours():
    assert sampling_of({"until": ["\n\n", ""], "max_gen_toks": 7}) == SamplingParams(
        temperature=0.0, max_tokens=7, stop=("\n\n",)
    )
    assert sampling_of({"until": "x", "do_sample": False, "temperature": 0.7}).temperature == 0.0
    drawn = sampling_of({"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 5})
    assert (drawn.temperature, drawn.top_p, drawn.top_k) == (0.7, 0.9, 5)
    assert sampling_of({"temperature": 0.5}).temperature == 0.5


def test_a_continuation_ends_before_its_stop(opened, model):
    free = model.generate([("a b", {"max_gen_toks": 6})])[0]
    cut = free.strip()[2:4].strip() or free.strip()[0]
    assert free.count(cut) >= 1
    found = model.generate([("a b", {"max_gen_toks": 6, "until": [cut]})])[0]
    assert found == free[: free.index(cut)]


def test_a_drawn_continuation_depends_on_the_seed_only(opened):
    asked = [("a b", {"do_sample": True, "temperature": 1.0, "max_gen_toks": 6})] * 2
    first = HarnessModel(opened, KNOWN, "output-soup", seed=1).generate(asked)
    assert first == HarnessModel(opened, KNOWN, "output-soup", seed=1).generate(asked)
    assert first != HarnessModel(opened, KNOWN, "output-soup", seed=2).generate(asked)


def test_the_base_alone_is_scored_as_it_is(opened):
    model = HarnessModel(opened, Known(), "base")
    item = Scored((model.prefix,), ids(opened, "d e"))
    plan = reference_plan(n_experts=3)
    expected = answer_log_probs(opened.base, opened.bank, plans=[plan], items=[item])[0]
    np.testing.assert_allclose(model.rolling("d e"), float(expected.sum()), atol=1e-4)


def test_a_prompted_method_adds_its_sentence_to_every_context(tiny_full_library):
    library = Library.load(tiny_full_library)
    model = HarnessModel(library, Known(preference={"kind": 1.0}), "prompt")
    text, plan = model.decide("a b")
    assert text == "be kind\n\na b"
    assert not any(plan.rows[0].coefficients)


def test_a_controlled_mixture_is_scored_with_its_controller(tiny_full_library):
    library = Library.load(tiny_full_library)
    known = Known(preference={"kind": 0.5, "short": 0.5})
    mixed, _ = HarnessModel(library, known, "mixture").log_likelihood("a b", " c")
    single, _ = HarnessModel(library, known, "soup").log_likelihood("a b", " c")
    assert np.isfinite(mixed)
    assert mixed != pytest.approx(single)
