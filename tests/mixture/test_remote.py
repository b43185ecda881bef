"""Mixing black boxes: bounds hold, failures are handled as asked, draws are exact."""

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from scipy.stats import chisquare

from palate.core.errors import InvalidInputError, ProviderError
from palate.core.protocols import SamplingParams
from palate.engine.openai.endpoint import Drawn
from palate.mixture.remote import FixedShares, RemoteMixture, RemoteSettings

N_VOCAB = 6
STOP = frozenset({5})
GREEDY = SamplingParams(temperature=0.0, max_tokens=8)


@dataclass
class Box:
    """A black box whose next-token distribution depends on the last token only."""

    name: str
    table: np.ndarray  # [last token, next token]
    top_k: int = N_VOCAB
    fails_after: int = 10_000
    is_retryable: bool = False
    calls: list[int] = field(default_factory=list)

    def next_log_probs(self, context, *, top_k=None):
        row = self._row(context)
        best = np.argsort(-row)[: top_k or self.top_k]
        return {int(token): math.log(row[token]) for token in best}

    def draw(self, context, *, n_tokens, seed):
        row, generator, tokens = self._row(context), np.random.default_rng(seed), []
        for _ in range(n_tokens):
            tokens.append(int(generator.choice(N_VOCAB, p=row)))
            row = self.table[tokens[-1]]
        return Drawn(tuple(tokens))

    def _row(self, context):
        self.calls.append(len(context))
        if len(self.calls) > self.fails_after:
            raise ProviderError(f"The server of {self.name!r} is gone.", is_retryable=True)
        return self.table[context[-1]]


def boxes(*, top_k: int = N_VOCAB, **options) -> list[Box]:
    generator = np.random.default_rng(4)
    tables = generator.dirichlet(np.full(N_VOCAB, 0.5), size=(3, N_VOCAB))
    return [Box(name, table, top_k, **options) for name, table in zip("abc", tables, strict=True)]


def mix(experts: list[Box], **settings) -> RemoteMixture:
    return RemoteMixture(
        experts, n_vocab=N_VOCAB, stop_ids=STOP, settings=RemoteSettings(**settings)
    )


SHARES = FixedShares((0.5, 0.3, 0.2))
START = [[0], [0], [0]]


def exact_row(experts: list[Box], last: int) -> np.ndarray:
    return sum(s * box.table[last] for s, box in zip(SHARES.values, experts, strict=True))


def test_whole_lists_give_the_exact_greedy_answer_and_certify_it() -> None:
    experts = boxes()
    found = mix(experts).generate(START, SHARES, sampling=GREEDY)
    last = 0
    for token in found.tokens:
        assert token == int(exact_row(experts, last).argmax())
        last = token
    assert np.allclose(found.bounds, 0.0, atol=1e-9)
    assert found.certified_fraction == 1.0
    assert found.n_calls == 3 * len(found.tokens)


def test_tokens_certified_from_short_lists_are_those_of_the_exact_mixture() -> None:
    n_certified = n_wrong = 0
    for k in (1, 2, 3, 4):
        for start in range(5):
            experts = boxes(top_k=k)
            found = mix(experts).generate([[start]] * 3, SHARES, sampling=GREEDY)
            last = start
            for token, is_certified in zip(found.tokens, found.is_certified, strict=True):
                is_right = token == int(exact_row(experts, last).argmax())
                assert is_right or not is_certified
                n_certified += is_certified
                n_wrong += not is_right
                last = token
    assert n_certified > 20
    assert n_wrong > 0  # so the certificate had something to refuse


def test_sampling_from_whole_lists_follows_the_mixture() -> None:
    experts = boxes()
    mixture = mix(experts)
    counts = Counter(
        mixture.generate(START, SHARES, sampling=SamplingParams(max_tokens=1), seed=seed).tokens[0]
        for seed in range(1500)
    )
    expected = 1500 * exact_row(experts, 0)
    observed = [counts[token] for token in range(N_VOCAB)]
    assert chisquare(observed, expected * (1500 / expected.sum())).pvalue > 0.001


def test_drawing_the_expert_first_follows_the_mixture_with_one_call() -> None:
    experts = boxes()
    mixture = mix(experts, mode="draws")
    answers = [
        mixture.generate(START, SHARES, sampling=SamplingParams(max_tokens=1), seed=seed)
        for seed in range(1500)
    ]
    counts = Counter(answer.tokens[0] for answer in answers)
    expected = 1500 * exact_row(experts, 0)
    observed = [counts[token] for token in range(N_VOCAB)]
    assert chisquare(observed, expected * (1500 / expected.sum())).pvalue > 0.001
    assert all(answer.n_calls == 1 and answer.bounds[0] == 0.0 for answer in answers)


def test_chunks_of_draws_say_that_they_are_not_exact() -> None:
    found = mix(boxes(), mode="draws", chunk_tokens=3).generate(
        START, SHARES, sampling=SamplingParams(max_tokens=6), seed=1
    )
    assert found.certified_fraction == 0.0
    assert set(found.bounds) == {1.0}
    assert found.n_calls == -(-len(found.tokens) // 3)


def test_lists_above_the_budget_are_asked_for_again_and_longer() -> None:
    experts = boxes(top_k=1)
    found = mix(experts, budget=0.05, max_top_k=N_VOCAB).generate(START, SHARES, sampling=GREEDY)
    assert np.all(found.bounds <= 0.05)
    assert found.n_calls > 3 * len(found.tokens)


def test_experts_below_the_threshold_are_not_called_and_their_share_is_the_bound() -> None:
    experts = boxes()
    found = mix(experts, skip_below=0.25).generate(START, SHARES, sampling=GREEDY)
    assert experts[2].calls == []
    assert np.allclose(found.bounds, 0.2)
    assert np.allclose(found.shares, [0.625, 0.375, 0.0])


def test_an_expert_that_dies_is_dropped_with_a_note_and_a_bound() -> None:
    experts = boxes()
    experts[1].fails_after = 2
    steady = SamplingParams(temperature=1.0, max_tokens=8)
    found = next(
        answer
        for seed in range(50)
        if len((answer := run_with_death(seed)).tokens) == steady.max_tokens
    )
    assert "Expert 'b' was dropped after 2 tokens" in found.notes[0]
    assert np.allclose(found.bounds[:2], 0.0, atol=1e-9)
    assert np.allclose(found.bounds[2:], 0.3)
    assert np.allclose(found.shares[2:], [5 / 7, 0.0, 2 / 7])


def run_with_death(seed: int):
    experts = boxes()
    experts[1].fails_after = 2
    return mix(experts, on_failure="drop").generate(
        START, SHARES, sampling=SamplingParams(max_tokens=8), seed=seed
    )


def test_or_the_answer_fails_and_says_how_far_it_got() -> None:
    experts = boxes()
    experts[0].fails_after = 0
    with pytest.raises(ProviderError, match=r"failed after 0 tokens.*'a' is gone") as caught:
        mix(experts).generate(START, SHARES, sampling=GREEDY)
    assert caught.value.is_retryable


def test_with_nobody_left_the_answer_fails() -> None:
    experts = boxes(fails_after=0)
    with pytest.raises(ProviderError, match="No expert with a share is left"):
        mix(experts, on_failure="drop").generate(START, SHARES, sampling=GREEDY)


def test_what_cannot_be_mixed_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no experts"):
        mix([])
    with pytest.raises(InvalidInputError, match="1 contexts for 3"):
        mix(boxes()).generate([[0]], SHARES, sampling=GREEDY)
    with pytest.raises(InvalidInputError, match="temperature 1"):
        mix(boxes(), mode="draws").generate(START, SHARES, sampling=GREEDY)
