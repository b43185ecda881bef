"""What a policy is worth: its answers to fixed prompts, scored by rewards and priced in KL.

Every policy answers the same prompts with the same seeds, so differences between policies are
paired. KL is summed over the whole vocabulary along the policy's own answers, which is unbiased and
spreads less than log-ratios of the drawn tokens.

Source:
    palm.md, sections 2 and 8.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import hash_value, read_versioned, write_versioned
from palate.core.plan import (
    Plan,
    Pool,
    Row,
    coefficients_from_mapping,
    one_hot,
    parameter_soup_plan,
)
from palate.core.protocols import Request, Sampling
from palate.core.seeds import derive_seed
from palate.experts.rollouts import RewardScores
from palate.models.bank import AdapterBank
from palate.models.chat import encode_prompt, format_messages
from palate.models.engine import LocalEngine
from palate.models.load import Base
from palate.models.logprobs import Scored, answer_divergences

KIND, VERSION = "palate-policy", 1

PolicyWay = Literal["base", "expert", "soup", "decoding"]


@dataclass(frozen=True)
class Policy:
    """Something that answers prompts, made of experts.

    Attributes:
        name: Letters, digits, `.`, `_`, `-`.
        way: The base alone; one expert; experts added as parameters; or pooled log-linearly.
        preference: Shares that it was made for; `None` for the base.
        coefficients: By expert; those not named count zero.
    """

    name: str
    way: PolicyWay
    preference: tuple[float, ...] | None
    coefficients: Mapping[str, float]

    def plan(self, experts: Sequence[str]) -> Plan:
        """The policy on a bank of these experts.

        Raises:
            InvalidCoefficientsError: the bank lacks an expert.
        """
        dense = coefficients_from_mapping(self.coefficients, experts=experts)
        if self.way != "decoding":
            return parameter_soup_plan(dense)
        active = [k for k, value in enumerate(dense) if value != 0.0]
        rows = tuple(Row(one_hot(index=k, n_experts=len(dense))) for k in active)
        return Plan(rows, Pool("log_linear", tuple(dense[k] for k in active))).normal_form()


@dataclass(frozen=True, eq=False)
class Measured:
    """What a policy's answers are worth, prompt by prompt.

    Attributes:
        rewards: `[prompts, objectives]`, means over the prompt's answers, in [0, 1].
        kl: `[prompts]`, nats per answer to the base, means over the prompt's answers.
        texts: `[prompts][answers]`, the answers.
    """

    rewards: Float[ndarray, "prompts objectives"]
    kl: Float[ndarray, " prompts"]
    texts: tuple[tuple[str, ...], ...]


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


def save_measured(path: Path, *, key: str, policy: Policy, measured: Measured) -> None:
    """Write a policy with its measurement, atomically."""
    content: dict[str, Any] = {
        "key": key,
        "name": policy.name,
        "way": policy.way,
        "preference": None if policy.preference is None else list(policy.preference),
        "coefficients": dict(policy.coefficients),
        "rewards": measured.rewards.tolist(),
        "kl": measured.kl.tolist(),
        "texts": [list(answers) for answers in measured.texts],
    }
    write_versioned(path, kind=KIND, version=VERSION, content=content)


def load_policy(path: Path) -> Policy:
    """The policy in a file written by `save_measured`.

    Raises:
        InvalidInputError: the file is missing or not JSON.
        FormatError: it is of another kind or version, or lacks a part.
    """
    return _parts(path)[0]


def load_measured(path: Path, *, key: str) -> Measured | None:
    """The measurement in a file, or `None` where there is none of this key.

    Raises:
        FormatError: the file is of another kind or version, or lacks a part.
    """
    if not path.is_file():
        return None
    _, measured, found = _parts(path)
    return measured if found == key else None


def _parts(path: Path) -> tuple[Policy, Measured, str]:
    content = read_versioned(path, kind=KIND, version=VERSION)
    try:
        shares = content["preference"]
        policy = Policy(
            name=str(content["name"]),
            way=content["way"],
            preference=None if shares is None else tuple(float(share) for share in shares),
            coefficients={str(k): float(v) for k, v in content["coefficients"].items()},
        )
        measured = Measured(
            rewards=np.array(content["rewards"], dtype=np.float64),
            kl=np.array(content["kl"], dtype=np.float64),
            texts=tuple(tuple(answers) for answers in content["texts"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(
            f"The policy file {str(path)!r} lacks or garbles a part ({error!r}); remove it and "
            "measure again."
        ) from error
    return policy, measured, str(content["key"])
