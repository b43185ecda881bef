"""Policies of a library with their measured rewards: one file each.

A policy is made of the library's experts. Its file has its coefficients, the rewards of its answers
to fixed prompts, and the experts' keys, so that a retrained expert is noticed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from palate.core.files import read_versioned, reading, write_versioned
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

PolicyMethod = Literal["base", "expert", "soup", "decoding"]


@dataclass(frozen=True)
class Policy:
    """A policy made of experts."""

    name: str  # letters, digits, `.`, `_`, `-`
    method: PolicyMethod  # soups add parameters, decoding pools outputs log-linearly
    preference: tuple[float, ...] | None  # shares that it was made for; `None` for the base
    coefficients: Mapping[str, float]  # by expert; others are zero

    def plan(self, experts: Sequence[str]) -> Plan:
        """The policy on a bank of these experts; InvalidCoefficientsError where one is missing."""
        dense = coefficients_from_mapping(self.coefficients, experts=experts)
        if self.method != "decoding":
            return parameter_soup_plan(dense)
        active = [k for k, value in enumerate(dense) if value != 0.0]
        rows = tuple(Row(one_hot(index=k, n_experts=len(dense))) for k in active)
        return Plan(rows, Pool("log_linear", tuple(dense[k] for k in active))).normal_form()


@dataclass(frozen=True, eq=False)
class Measured:
    """Rewards of a policy's answers, prompt by prompt; means over each prompt's answers."""

    rewards: Float[np.ndarray, "prompts objectives"]  # in [0, 1]
    kl: Float[np.ndarray, " prompts"]  # to the base, nats per answer
    texts: tuple[tuple[str, ...], ...]  # `[prompts][answers]`
    answers: Answers | None = None  # one by one, where there are several to each prompt

    def to_json(self) -> dict[str, Any]:
        """The measurement as data that `palate.core.files` writes."""
        return {**vars(self), "answers": self.answers and vars(self.answers)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Measured":
        """The measurement that `to_json` gave; other keys may stand beside it."""
        each = content.get("answers")
        return cls(
            rewards=np.array(content["rewards"], dtype=np.float64),
            kl=np.array(content["kl"], dtype=np.float64),
            texts=tuple(tuple(answers) for answers in content["texts"]),
            answers=each and Answers(np.array(each["rewards"]), np.array(each["log_ratios"])),
        )


@dataclass(frozen=True, eq=False)
class PolicyFile:
    """The content of a policy's file."""

    policy: Policy
    measured: Measured
    key: str  # of the measurement: prompts, rewards, experts
    experts: Mapping[str, str]  # key of every expert that the policy is made of


def save_policy(path: Path, file: PolicyFile) -> None:
    """Write a policy with its measurement, atomically."""
    head = {"key": file.key, "experts": dict(file.experts)}
    content = {**head, **vars(file.policy), **file.measured.to_json()}
    write_versioned(path, kind=KIND, version=VERSION, content=content)


def load_policy(path: Path) -> PolicyFile:
    """The policy in a file.

    Raises:
        InvalidInputError: the file is missing or not JSON.
        FormatError: it is of another kind or version, or lacks a part.
    """
    content = read_versioned(path, kind=KIND, version=VERSION)
    with reading(path, remedy="remove it and measure again"):
        shares = content["preference"]
        policy = Policy(
            name=str(content["name"]),
            method=content["method"] if "method" in content else content["way"],
            preference=None if shares is None else tuple(float(share) for share in shares),
            coefficients={str(k): float(v) for k, v in content["coefficients"].items()},
        )
        measured = Measured.from_json(content)
        experts = {name: str(content["experts"][name]) for name in policy.coefficients}
        return PolicyFile(policy, measured, str(content["key"]), experts)
