"""Policies of a library, and what was measured of them: one file each.

A policy is made of the library's experts. Its file says how, what its answers to fixed prompts were
worth, and which experts it was measured with, so that a retrained expert is noticed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import FormatError
from palate.core.files import read_versioned, write_versioned
from palate.core.plan import (
    Plan,
    Pool,
    Row,
    coefficients_from_mapping,
    one_hot,
    parameter_soup_plan,
)
from palate.portfolio.slack import Answers

KIND, VERSION = "palate-policy", 1
BASE = "base"

PolicyWay = Literal["base", "expert", "soup", "decoding"]


@dataclass(frozen=True)
class Policy:
    """Something that answers prompts, made of experts.

    Attributes:
        name: Letters, digits, `.`, `_`, `-`.
        method: The base alone; one expert; experts added as parameters; or pooled log-linearly.
        preference: Shares that it was made for; `None` for the base.
        coefficients: By expert; those not named count zero.
    """

    name: str
    method: PolicyWay
    preference: tuple[float, ...] | None
    coefficients: Mapping[str, float]

    def plan(self, experts: Sequence[str]) -> Plan:
        """The policy on a bank of these experts.

        Raises:
            InvalidCoefficientsError: the bank lacks an expert.
        """
        dense = coefficients_from_mapping(self.coefficients, experts=experts)
        if self.method != "decoding":
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
        answers: What each answer is worth and its log-ratio to the base; `None` with one answer to
            each prompt, which says nothing of the policy's slack.
    """

    rewards: Float[ndarray, "prompts objectives"]
    kl: Float[ndarray, " prompts"]
    texts: tuple[tuple[str, ...], ...]
    answers: Answers | None = None


@dataclass(frozen=True, eq=False)
class PolicyFile:
    """A policy as it is kept.

    Attributes:
        policy: How it is made.
        measured: What it is worth.
        key: Of the measurement: prompts, rewards, experts.
        experts: Key of every expert that it is made of, by name.
    """

    policy: Policy
    measured: Measured
    key: str
    experts: Mapping[str, str]


def save_policy(path: Path, kept: PolicyFile) -> None:
    """Write a policy with its measurement, atomically."""
    policy, measured = kept.policy, kept.measured
    content: dict[str, Any] = {
        "key": kept.key,
        "experts": dict(kept.experts),
        "name": policy.name,
        "method": policy.method,
        "preference": None if policy.preference is None else list(policy.preference),
        "coefficients": dict(policy.coefficients),
        "rewards": measured.rewards.tolist(),
        "kl": measured.kl.tolist(),
        "texts": [list(answers) for answers in measured.texts],
        "answers": None
        if measured.answers is None
        else {
            "rewards": measured.answers.rewards.tolist(),
            "log_ratios": measured.answers.log_ratios.tolist(),
        },
    }
    write_versioned(path, kind=KIND, version=VERSION, content=content)


def load_policy(path: Path) -> PolicyFile:
    """The policy in a file.

    Raises:
        InvalidInputError: the file is missing or not JSON.
        FormatError: it is of another kind or version, or lacks a part.
    """
    content = read_versioned(path, kind=KIND, version=VERSION)
    try:
        shares = content["preference"]
        policy = Policy(
            name=str(content["name"]),
            method=content["method"] if "method" in content else content["way"],
            preference=None if shares is None else tuple(float(share) for share in shares),
            coefficients={str(k): float(v) for k, v in content["coefficients"].items()},
        )
        measured = Measured(
            rewards=np.array(content["rewards"], dtype=np.float64),
            kl=np.array(content["kl"], dtype=np.float64),
            texts=tuple(tuple(answers) for answers in content["texts"]),
            answers=_answers(content.get("answers")),
        )
        return PolicyFile(policy, measured, str(content["key"]), dict(content["experts"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(
            f"The policy file {str(path)!r} lacks or garbles a part ({error!r}); remove it and "
            "measure again."
        ) from error


def _answers(content: Any) -> Answers | None:
    if content is None:
        return None
    return Answers(
        rewards=np.array(content["rewards"], dtype=np.float64),
        log_ratios=np.array(content["log_ratios"], dtype=np.float64),
    )
