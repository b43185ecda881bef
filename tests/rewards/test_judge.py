import pytest

from judge_server import serving, shorter
from palate.core.errors import ProviderError
from palate.rewards.judge import EndpointJudge, Question, both_orders

SHORT_OR_LONG = Question("Why?", "Because.", "Because it is so.", "Brief.")


def test_a_verdict_is_one_for_the_first_zero_for_the_second_and_half_for_a_tie():
    with serving() as server:
        judge = EndpointJudge.connect(url=server.url, model="m")
        same = Question("Why?", "So.", "No.", "Brief.")
        verdicts = judge.compare([SHORT_OR_LONG, SHORT_OR_LONG.turned(), same])
    assert verdicts.tolist() == [1.0, 0.0, 0.5]


def test_one_question_speaks_of_one_criterion_and_both_answers():
    with serving() as server:
        EndpointJudge.connect(url=server.url, model="m").compare([SHORT_OR_LONG])
        asked = server.questions[0]
    assert asked.count("Criterion:") == 1
    assert "Brief." in asked
    assert "Because it is so." in asked


def test_both_orders_agree_for_a_judge_that_reads_and_flip_for_one_that_likes_the_first():
    with serving() as server:
        judge = EndpointJudge.connect(url=server.url, model="m")
        fair = both_orders(judge, [SHORT_OR_LONG, SHORT_OR_LONG.turned()])
        server.rule = lambda _first, _second: "A"
        biased = both_orders(judge, [SHORT_OR_LONG])
    assert fair.verdicts.tolist() == [1.0, 0.0]
    assert (fair.shown_first == fair.shown_second).all()
    assert biased.verdicts.tolist() == [0.5]
    assert (biased.shown_first != biased.shown_second).tolist() == [True]


def test_what_fails_in_passing_is_tried_again():
    with serving() as server:
        server.faults = [503, 429]
        judge = EndpointJudge.connect(url=server.url, model="m")
        assert judge.compare([SHORT_OR_LONG]).tolist() == [1.0]


def test_a_server_that_refuses_is_one_sentence_that_knows_whether_to_retry():
    with serving() as server:
        server.faults = [401]
        judge = EndpointJudge.connect(url=server.url, model="m", n_retries=0)
        with pytest.raises(ProviderError, match="status 401") as refused:
            judge.compare([SHORT_OR_LONG])
        server.faults = [500]
        with pytest.raises(ProviderError, match="status 500") as failed:
            judge.compare([SHORT_OR_LONG])
    assert not refused.value.is_retryable
    assert failed.value.is_retryable
    with pytest.raises(ProviderError, match="cannot be reached"):
        EndpointJudge.connect(url=server.url, model="m", n_retries=0).compare([SHORT_OR_LONG])


@pytest.mark.parametrize(
    ("reply", "value"), [("A", 1.0), (" b. ", 0.0), ("**Tie**", 0.5), ("Answer A.", 1.0)]
)
def test_replies_in_a_few_spellings_are_read(reply, value):
    with serving(lambda _first, _second: reply) as server:
        judge = EndpointJudge.connect(url=server.url, model="m")
        assert judge.compare([SHORT_OR_LONG]).tolist() == [value]


@pytest.mark.parametrize("reply", ["I like a good answer", "B is better than A", ""])
def test_a_reply_that_is_no_verdict_is_asked_for_again_and_then_refused(reply):
    with serving(lambda _first, _second: reply) as server:
        judge = EndpointJudge.connect(url=server.url, model="m")
        with pytest.raises(ProviderError, match="no verdict in 3 attempts"):
            judge.compare([SHORT_OR_LONG])
        assert len(server.questions) == 3


def test_the_scripted_rule_itself():
    assert [shorter("a", "bb"), shorter("bb", "a"), shorter("a", "b")] == ["A", "B", "TIE"]
