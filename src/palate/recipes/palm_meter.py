"""What a policy is worth: its answers to fixed prompts, scored by rewards and priced in KL.

Every policy answers the same prompts with the same seeds, so differences between policies are
paired. KL is summed over the whole vocabulary along the policy's own answers, which is unbiased and
spreads less than log-ratios of the drawn tokens.

Source:
    palm.md, sections 2 and 8.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.files import hash_value
from palate.core.plan import Plan
from palate.core.protocols import Request, Sampling
from palate.core.seeds import derive_seed
from palate.experts.rollouts import RewardScores
from palate.models.bank import AdapterBank
from palate.models.chat import encode_prompt, format_messages
from palate.models.engine import LocalEngine
from palate.models.load import Base
from palate.models.logprobs import Scored, answer_divergences
from palate.recipes.palm_policy import Measured


@dataclass(frozen=True, eq=False)
class Meter:
    """How policies are measured.

    Attributes:
        base: The reference.
        prompts: As people write them.
        reward: What answers are worth.
        reward_key: What identifies the reward, so that measurements by another are not mixed in.
        n_answers: To each prompt.
        max_tokens: Most tokens of an answer.
        seed: The same for all policies.
    """

    base: Base
    prompts: tuple[str, ...]
    reward: RewardScores
    reward_key: str
    n_answers: int
    max_tokens: int
    seed: int

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
                "max_tokens": self.max_tokens,
                "seed": self.seed,
            }
        )

    def measure(self, plan: Plan, bank: AdapterBank) -> Measured:
        """The plan's answers, scored and priced."""
        asked = [(prompt, copy) for prompt in self.prompts for copy in range(self.n_answers)]
        sampling = Sampling(max_tokens=self.max_tokens)
        requests = [
            Request(
                format_messages(self.base, prompt),
                plan,
                sampling,
                seed=derive_seed(self.seed, "meter", prompt, copy),
            )
            for prompt, copy in asked
        ]
        answers = LocalEngine(self.base, bank).generate(requests)
        texts = [answer.text for answer in answers]
        rewards = self.reward.score([prompt for prompt, _ in asked], texts)
        items = [
            Scored(tuple(encode_prompt(self.base, request.prompt)), answer.tokens)
            for request, answer in zip(requests, answers, strict=True)
        ]
        kl = self._divergences(plan, bank, items)
        shape = (len(self.prompts), self.n_answers)
        grouped = [tuple(texts[k : k + shape[1]]) for k in range(0, len(texts), shape[1])]
        return Measured(
            rewards=np.asarray(rewards, dtype=np.float64).reshape(*shape, -1).mean(axis=1),
            kl=kl.reshape(shape).mean(axis=1),
            texts=tuple(grouped),
        )

    def _divergences(
        self, plan: Plan, bank: AdapterBank, items: Sequence[Scored]
    ) -> Float[ndarray, " answers"]:
        """Nats of every answer; read in order of length, to pad little."""
        order = np.argsort([len(item.answer) for item in items], kind="stable")
        some = [items[k] for k in order]
        found = answer_divergences(self.base, bank, plans=[plan] * len(some), items=some)
        kl = np.zeros(len(items))
        kl[order] = [float(terms.double().sum()) for terms in found]
        return np.clip(kl, 0.0, None)  # rounding only: a divergence is not negative
