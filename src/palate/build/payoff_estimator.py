"""The payoff of a policy: its answers to fixed prompts, scored by rewards and priced in KL.

Every policy answers the same prompts with the same seeds, so differences between policies are
paired. KL is summed over the whole vocabulary along the policy's own answers, which is unbiased and
varies less than log-ratios of the sampled tokens. With several answers to each prompt, the result
has every answer's reward and log-ratio too, from which the policy's slack is estimated.

Source:
    palm.md, sections 2 and 8; methods/README.md C9.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from palate.core.errors import InvalidInputError
from palate.core.files import hash_value
from palate.core.plan import Plan, reference_plan
from palate.core.protocols import Request, SamplingParams
from palate.core.seeds import derive_seed
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.engine.logprobs import Scored, answer_divergences, answer_log_probs
from palate.library.policy import Measured
from palate.models.chat import encode_prompt, format_messages
from palate.models.load import Base
from palate.portfolio.slack import Answers
from palate.rewards.texts import messages_of
from palate.training.rollouts import RewardScores


@dataclass(frozen=True, eq=False)
class PayoffEstimator:
    """How policies are measured."""

    base: Base  # the reference
    prompts: tuple[str, ...]  # prompts as users write them
    reward: RewardScores  # scores of answers
    reward_key: str  # identifies the reward, so that measurements by another are not mixed in
    n_answers: int  # answers to each prompt
    max_tokens: int  # most tokens of an answer
    seed: int  # random seed, the same for all policies
    temperature: float = 1.0  # of the policies and the base: of what is sampled, and of the KL

    def __post_init__(self) -> None:
        """Refuse too few prompts for a standard error."""
        if len(self.prompts) < 4 or self.n_answers < 1:
            raise InvalidInputError(
                f"{len(self.prompts)} prompts with {self.n_answers} answers each cannot price a "
                "policy; give at least four prompts and one answer."
            )

    @property
    def fingerprint(self) -> str:
        """Hash of everything a measurement depends on but the policy."""
        return hash_value(
            {
                "base": self.base.fingerprint,
                "prompts": list(self.prompts),
                "reward": self.reward_key,
                "n_answers": self.n_answers,
                "has_log_ratios": self.n_answers > 1,
                "max_tokens": self.max_tokens,
                "seed": self.seed,
                **({"temperature": self.temperature} if self.temperature != 1.0 else {}),
            }
        )

    def measure(self, plan: Plan, bank: AdapterBank) -> Measured:
        """The plan's answers, scored and priced."""
        prompts = [prompt for prompt in self.prompts for _ in range(self.n_answers)]
        sampling = SamplingParams(temperature=self.temperature, max_tokens=self.max_tokens)
        requests = [
            Request(
                format_messages(self.base, messages_of(prompt)),
                plan,
                sampling,
                seed=derive_seed(self.seed, "meter", prompt, place % self.n_answers),
            )
            for place, prompt in enumerate(prompts)
        ]
        answers = LocalEngine(self.base, bank).generate(requests)
        texts = [answer.text for answer in answers]
        rewards = self.reward.score(prompts, texts)
        items = [
            Scored(tuple(encode_prompt(self.base, request.prompt)), answer.tokens)
            for request, answer in zip(requests, answers, strict=True)
        ]
        kl = self._summed(answer_divergences, plan, bank, items).clip(min=0.0)  # rounding only
        shape = (len(self.prompts), self.n_answers)
        grouped = [tuple(texts[k : k + shape[1]]) for k in range(0, len(texts), shape[1])]
        each = np.asarray(rewards, dtype=np.float64).reshape(*shape, -1)
        single = None
        if self.n_answers > 1:
            reference = reference_plan(n_experts=bank.n_experts)
            own = self._summed(answer_log_probs, plan, bank, items)
            base = self._summed(answer_log_probs, reference, bank, items)
            single = Answers(each, (own - base).reshape(shape))
        kl = kl.reshape(shape).mean(axis=1)
        return Measured(rewards=each.mean(axis=1), kl=kl, texts=tuple(grouped), answers=single)

    def _summed(
        self,
        score: Callable[..., Sequence[Tensor]],
        plan: Plan,
        bank: AdapterBank,
        items: Sequence[Scored],
    ) -> Float[ndarray, " answers"]:
        """Sum over the tokens of every answer, nats."""
        plans = [plan] * len(items)
        tokens = score(self.base, bank, plans=plans, items=items, temperature=self.temperature)
        return np.array([float(terms.double().sum()) for terms in tokens])
