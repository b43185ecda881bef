"""How a controller is trained; the defaults are for a trunk of 160 M parameters."""

from typing import Literal

from pydantic import Field, model_validator

from palate.core.protocols import SamplingParams
from palate.core.settings import Settings
from palate.mixture.wording import Pooling, Prompts
from palate.models.trunk import TrunkSettings


class LossSettings(Settings):
    """REBEL and PPO."""

    method: Literal["rebel", "ppo"] = "rebel"
    eta: float = Field(default=1.0, gt=0)  # for REBEL: nats of log-ratio per unit of reward
    price: float = Field(default=0.0, ge=0)  # reward units per nat of KL to the uniform mixture
    clip: float = Field(default=0.2, gt=0, lt=1)  # PPO: ratios outside `1 +- clip` earn no more
    smoothing: float = Field(default=0.95, ge=0, le=1)  # PPO: lambda of generalised advantages
    value_share: float = Field(default=0.5, ge=0)  # for PPO: coefficient of the value loss
    # for REBEL: every update learns from all answers so far. The price must be `1 / eta`: then the
    # target is `pi_uniform exp(eta R)` whoever wrote an answer (M11), so old answers are as good as
    # new ones
    is_replayed: bool = False

    @property
    def has_fixed_target(self) -> bool:
        """Whether any answers can be learned from, whoever wrote them."""
        return self.method == "rebel" and abs(self.eta * self.price - 1) <= 1e-6

    @model_validator(mode="after")
    def _can_replay(self) -> "LossSettings":
        if self.is_replayed and not self.has_fixed_target:
            raise ValueError(
                f"is_replayed needs method=rebel and price=1/eta, not {self.method}, "
                f"price={self.price} and eta={self.eta}"
            )
        return self


class FitSettings(Settings):
    """Sizes and rates of a training run."""

    loss: LossSettings = LossSettings()  # REBEL or PPO, and their numbers
    trunk: TrunkSettings = TrunkSettings()  # of the controller
    prompts: Prompts = "own"  # sentences in experts' prompts: own, all wanted (`full`), or none
    # probabilities are averaged (`linear`) or log-probabilities (`log_linear`); the latter needs
    # the experts' whole distributions in training
    pool: Pooling = "linear"
    # coefficient of every other wanted expert in an expert's row; 0 is the paper's mixture
    blend: float = Field(default=0.0, ge=0, lt=1)
    # `win`: win probabilities; `raw`: log-odds against the reference answer on the scale of win
    # probabilities near one half, not squashed
    reward: Literal["win", "raw"] = "win"
    n_updates: int = Field(default=200, ge=1)  # rounds of sampling and learning
    n_pairs: int = Field(default=64, ge=1)  # sampled per update; PPO sees answers one by one
    n_epochs: int = Field(default=4, ge=1)  # passes over them
    batch_pairs: int = Field(default=16, ge=1)  # pairs per optimizer step
    # of the trunk, decaying linearly to zero; 0 trains only the heads
    body_rate: float = Field(default=1e-5, ge=0)
    head_rate: float = Field(default=1e-4, gt=0)  # the same of the heads and the strengths
    max_grad_norm: float = Field(default=1.0, gt=0)  # gradients are clipped to this length
    max_tokens: int = Field(default=128, ge=1)  # longest answer
    # of sampled answers. Not 1 only with REBEL at the price `1 / eta`, whose target is the same
    # whoever wrote the answers (M11): small models write nonsense at 1
    temperature: float = Field(default=1.0, gt=0)
    judge_temperature: float = Field(default=1.0, gt=0)  # divides log-odds before they are squashed
    checkpoint_every: int = Field(default=20, ge=1)  # updates between checkpoints
    seed: int = 0  # random seed of the run

    @model_validator(mode="after")
    def _can_cool(self) -> "FitSettings":
        if self.temperature != 1.0 and not self.loss.has_fixed_target:
            raise ValueError(
                f"temperature={self.temperature:g} needs method=rebel and price=1/eta in loss, not "
                f"{self.loss.method}, price={self.loss.price} and eta={self.loss.eta}"
            )
        return self

    @property
    def sampling(self) -> SamplingParams:
        """How answers are sampled, to learn from and to measure."""
        return SamplingParams(temperature=self.temperature, max_tokens=self.max_tokens)
