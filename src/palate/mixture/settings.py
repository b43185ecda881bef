"""How a controller is trained; the defaults are for a trunk of 160 M parameters."""

from typing import Literal

from pydantic import Field, model_validator

from palate.core.settings import Settings
from palate.mixture.wording import Pooling, Prompts
from palate.models.trunk import TrunkSettings


class LossSettings(Settings):
    """REBEL and PPO.

    Attributes:
        method: The loss.
        eta: For REBEL: nats of log-ratio per unit of reward.
        price: Reward units per nat of KL to the uniform mixture.
        clip: For PPO: ratios outside `1 +- clip` earn nothing more.
        smoothing: For PPO: lambda of the generalised advantages.
        value_share: For PPO: coefficient of the value loss.
        is_replayed: For REBEL: every update learns from all answers so far. The price must be
            `1 / eta`: then the target is `pi_uniform exp(eta R)` whoever wrote an answer (M11), so
            old answers are as good as new ones.
    """

    method: Literal["rebel", "ppo"] = "rebel"
    eta: float = Field(default=1.0, gt=0)
    price: float = Field(default=0.0, ge=0)
    clip: float = Field(default=0.2, gt=0, lt=1)
    smoothing: float = Field(default=0.95, ge=0, le=1)
    value_share: float = Field(default=0.5, ge=0)
    is_replayed: bool = False

    @model_validator(mode="after")
    def _can_replay(self) -> "LossSettings":
        if self.is_replayed and (self.method != "rebel" or abs(self.eta * self.price - 1) > 1e-6):
            raise ValueError(
                f"is_replayed needs method=rebel and price=1/eta, not {self.method}, "
                f"price={self.price} and eta={self.eta}"
            )
        return self


class FitSettings(Settings):
    """Sizes and rates of a training run.

    Attributes:
        loss: REBEL or PPO, and their numbers.
        trunk: Shape of the controller.
        prompts: Sentences in the experts' prompts: their own, all wanted ones (`full`), or none.
        pool: Probabilities are averaged (`linear`) or log-probabilities (`log_linear`); the latter
            needs the experts' whole distributions in training.
        blend: Coefficient of every other wanted expert in an expert's row; 0 is the paper's
            mixture, in which a row is one expert.
        reward: `win`: win probabilities; `raw`: log-odds against the reference answer on the scale
            of win probabilities near one half, not squashed.
        n_updates: Rounds of sampling and learning.
        n_pairs: Pairs of answers sampled per update; PPO sees the same answers one by one.
        n_epochs: Passes over them.
        batch_pairs: Pairs per optimizer step.
        body_rate: Learning rate of the trunk, decaying linearly to zero; 0 freezes it, so that only
            the heads are trained.
        head_rate: The same of the heads and the strengths.
        max_grad_norm: Gradients are clipped to this length.
        max_tokens: Longest answer.
        judge_temperature: Log-odds are divided by it before they become win probabilities.
        checkpoint_every: Updates between checkpoints.
        seed: Random seed of the run.
    """

    loss: LossSettings = LossSettings()
    trunk: TrunkSettings = TrunkSettings()
    prompts: Prompts = "own"
    pool: Pooling = "linear"
    blend: float = Field(default=0.0, ge=0, lt=1)
    reward: Literal["win", "raw"] = "win"
    n_updates: int = Field(default=200, ge=1)
    n_pairs: int = Field(default=64, ge=1)
    n_epochs: int = Field(default=4, ge=1)
    batch_pairs: int = Field(default=16, ge=1)
    body_rate: float = Field(default=1e-5, ge=0)
    head_rate: float = Field(default=1e-4, gt=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=128, ge=1)
    judge_temperature: float = Field(default=1.0, gt=0)
    checkpoint_every: int = Field(default=20, ge=1)
    seed: int = 0
