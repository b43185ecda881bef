import numpy as np

from research.world.documents import sample_document, sample_wishes, tokenizer_texts
from research.world.grammar import parse
from research.world.objectives import AXES, OBJECTIVES


def question_of(document):
    line = next(line for line in document.prompt.split("\n") if line.startswith("Question: "))
    return line.removeprefix("Question: ")


def test_every_document_is_a_question_with_a_well_formed_answer_to_it():
    generator = np.random.default_rng(0)
    for _ in range(500):
        document = sample_document(generator)
        assert document.prompt.endswith("?\nAnswer:\n") or document.prompt.endswith(".\nAnswer:\n")
        assert parse(question_of(document), document.answer).is_well_formed


def test_three_documents_in_ten_carry_a_wish():
    generator = np.random.default_rng(1)
    n = 4000
    share = np.mean([sample_document(generator).prompt.startswith("Wish: ") for _ in range(n)])
    assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / n)


def test_a_wish_is_obeyed_more_often_than_by_chance_yet_not_always():
    # alone or with others: 0.7 obeyed, else 1 to 5 facts at random, of which 4 and 5 also fit
    generator = np.random.default_rng(2)
    fits: list[bool] = []
    while len(fits) < 1000:
        document = sample_document(generator)
        if "Tell me many facts." in document.prompt.split("\n")[0]:
            answer = parse(question_of(document), document.answer).answer
            assert answer is not None
            fits.append(answer.n_facts >= 4)
    expected = 0.7 + 0.3 * 2 / 5
    assert abs(np.mean(fits) - expected) < 4 * np.sqrt(expected * (1 - expected) / 1000)


def test_wishes_are_one_to_three_poles_of_different_axes_in_any_order():
    generator = np.random.default_rng(3)
    axis_of = {pole: axis for axis, poles in AXES.items() for pole in poles}
    drawn = [sample_wishes(generator) for _ in range(600)]
    assert {len(wishes) for wishes in drawn} == {1, 2, 3}
    assert all(len({axis_of[wish] for wish in wishes}) == len(wishes) for wishes in drawn)
    assert {wishes[0] for wishes in drawn} == set(OBJECTIVES)


def test_the_tokenizer_sees_every_preference_sentence():
    texts = tokenizer_texts(n_documents=3, generator=np.random.default_rng(0))
    assert texts[3:] == [objective.instruction for objective in OBJECTIVES]
