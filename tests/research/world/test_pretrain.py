import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from palate.models.load import load_base
from research.world.documents import Document
from research.world.pretrain import (
    END_ID,
    PADDING_ID,
    PretrainSettings,
    answer_loss,
    collate,
    pretrain,
)
from research.world.prompts import format_prompt

TINY = PretrainSettings(
    steps=3,
    batch_documents=2,
    vocabulary=400,
    tokenizer_documents=100,
    hidden=16,
    layers=1,
    heads=2,
    feed_forward=16,
)
DOCUMENTS = [Document("Question: a?\nAnswer:\n", "It."), Document("Question: b?\nAnswer:\n", "")]


@pytest.fixture(scope="module")
def tiny():
    return pretrain(TINY)


def test_the_same_seed_gives_the_same_base_and_leaves_torchs_generator_alone(tiny):
    before = torch.random.get_rng_state()
    again = pretrain(TINY)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert again.losses == tiny.losses
    for left, right in zip(tiny.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(left, right)
    other = pretrain(TINY.model_copy(update={"seed": 1}))
    assert other.losses != tiny.losses


def test_every_step_is_reported():
    steps = []
    done = pretrain(TINY, on_step=lambda step, loss: steps.append((step, loss)))
    assert [step for step, _ in steps] == [1, 2, 3]
    assert tuple(loss for _, loss in steps) == done.losses


@given(text=st.text(max_size=40).filter(lambda text: "<|" not in text))
def test_the_tokenizer_gives_any_text_back_and_adds_nothing(tiny, text):
    ids = tiny.tokenizer(text)["input_ids"]
    assert tiny.tokenizer.decode(ids) == text
    assert not {PADDING_ID, END_ID} & set(ids)


def test_special_tokens_have_the_ids_that_the_model_is_told(tiny):
    assert (tiny.tokenizer.pad_token_id, tiny.tokenizer.eos_token_id) == (PADDING_ID, END_ID)
    assert (tiny.model.config.pad_token_id, tiny.model.config.eos_token_id) == (PADDING_ID, END_ID)
    assert tiny.tokenizer.bos_token_id is None


def test_prompt_and_answer_meet_at_a_token_border(tiny):
    prompt, answer = format_prompt("What is a desert fox?"), "A desert fox lives in hot dry sand."
    apart = tiny.tokenizer(prompt)["input_ids"] + tiny.tokenizer(answer)["input_ids"]
    assert tiny.tokenizer(prompt + answer)["input_ids"] == apart


def test_the_chat_template_writes_what_the_base_reads(tiny):
    messages = [
        {"role": "system", "content": "Keep it short."},
        {"role": "user", "content": "What is a desert fox?"},
    ]
    for given_messages, instruction in ((messages, "Keep it short."), (messages[1:], None)):
        text = tiny.tokenizer.apply_chat_template(
            given_messages, tokenize=False, add_generation_prompt=True
        )
        assert text == format_prompt("What is a desert fox?", instruction)
    talk = [messages[1], {"role": "assistant", "content": "It."}, messages[1]]
    assert tiny.tokenizer.apply_chat_template(talk, tokenize=False) == (
        "Question: What is a desert fox?\nAnswer:\nIt.<|end|>\nQuestion: What is a desert fox?\n"
    )


def test_the_loss_is_that_of_answer_and_end_tokens_only(tiny):
    batch = collate(DOCUMENTS, tokenizer=tiny.tokenizer)
    total, n_tokens = 0.0, 0
    for document in DOCUMENTS:  # one at a time, without padding
        prompt = tiny.tokenizer(document.prompt)["input_ids"]
        answer = [*tiny.tokenizer(document.answer)["input_ids"], END_ID]
        with torch.no_grad():
            logits = tiny.model(torch.tensor([prompt + answer])).logits[0]
        log_probs = torch.log_softmax(logits, dim=-1)
        for place, token in enumerate(answer):
            total -= float(log_probs[len(prompt) + place - 1, token])
            n_tokens += 1
    with torch.no_grad():
        assert float(answer_loss(tiny.model, **batch)) == pytest.approx(total, rel=1e-5)
        assert float(tiny.model(**batch).loss) == pytest.approx(total / n_tokens, rel=1e-5)


def test_a_saved_base_is_loaded_with_the_same_parameters(tiny, tmp_path):
    tiny.save(tmp_path / "base")
    base = load_base(tmp_path / "base")
    assert base.stop_ids == {END_ID}
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(base.model(ids).logits, tiny.model(ids).logits)


@pytest.mark.parametrize("change", [{"steps": 0}, {"vocabulary": 4000}, {"widht": 3}])
def test_settings_out_of_range_or_unknown_are_refused(change):
    with pytest.raises(ValidationError):
        PretrainSettings(**change)
