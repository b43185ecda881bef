"""`soup.json`: what the offline phase leaves for the online one.

The experts' order, the common beta, the scale of every feature, how many directions the basis
spans, what coefficients users had so far, the safety floor, and how far a soup may go.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from palate.core.errors import FormatError, InvalidCoefficientsError, InvalidInputError
from palate.core.files import JsonObject, read_versioned, reading, write_versioned
from palate.core.types import Belief
from palate.soup.settings import SoupSettings
from palate.soup.states import ByExpert, require_coefficients

KIND = "palate soup"
VERSION = 3
STATED = "stated"  # where a strength is from that the run file gave


@dataclass(frozen=True, eq=False)
class SoupBasis:
    """The basis a user's coefficients are over."""

    base: str  # hash of the base model's files
    experts: tuple[str, ...]  # names in bank order, all different
    objectives: tuple[str, ...]
    # what each was trained for; rows may be signed
    anchors: Float[np.ndarray, "experts objectives"]
    beta: float  # the KL price all experts were trained with
    feature_means: ByExpert  # mean `beta * tilt_k` of calibration answers
    # standard deviation of the same, above zero: divides features before a fit with gain 1
    feature_scales: ByExpert
    effective_rank: dict[str, int]  # share of energy (`"0.9"` ...) to number of directions
    prior: Belief  # the population's, of scaled features' coefficients, with its gain
    floor: tuple[str, float] | None = None  # a safety expert and its least coefficient, or `None`
    settings: SoupSettings = field(default_factory=SoupSettings)
    # multiplies coefficients from a stated preference; `None`: unmeasured
    strength: float | None = None
    experts_key: str = ""  # hash of the experts' parameters; empty in files of before
    strength_from: str = ""  # `STATED`, or hash of what it was measured on; empty as above

    def __post_init__(self) -> None:
        """Refuse fields that disagree."""
        n_experts = len(self.experts)
        arrays = {
            "anchors": (self.anchors, (n_experts, len(self.objectives))),
            "feature_means": (self.feature_means, (n_experts,)),
            "feature_scales": (self.feature_scales, (n_experts,)),
            "prior mean": (self.prior.mean, (n_experts,)),
            "prior covariance": (self.prior.covariance, (n_experts, n_experts)),
        }
        for name, (array, wanted) in arrays.items():
            if np.shape(array) != wanted or np.any(np.isnan(array)):
                raise InvalidInputError(
                    f"The soup's {name} have shape {np.shape(array)}, but {wanted} numbers are "
                    "needed."
                )
        if len(set(self.experts)) != n_experts or not n_experts:
            raise InvalidInputError(
                f"The soup's experts {list(self.experts)} must be at least one, all different."
            )
        if not (self.beta > 0 and np.all(self.feature_scales > 0)):
            raise InvalidInputError("The soup's beta and feature scales must be above zero.")
        if self.strength is not None and not 0.0 < self.strength < np.inf:
            raise InvalidInputError(
                f"The soup's strength {self.strength} is out of range; give a number above 0."
            )
        _require_covariance(self.prior.covariance)
        if self.floor is not None and not (
            self.floor[0] in self.experts and np.isfinite(self.floor[1])
        ):
            raise InvalidCoefficientsError(
                f"The safety floor {self.floor[1]} on {self.floor[0]!r} does not fit; name one of "
                f"{', '.join(self.experts)} and a finite coefficient."
            )

    @property
    def floor_place(self) -> tuple[int, float] | None:
        """The safety floor by the expert's place in the bank."""
        if self.floor is None:
            return None
        return self.experts.index(self.floor[0]), self.floor[1]

    def features(
        self, log_ratios: Float[np.ndarray, "answers experts"]
    ) -> Float[np.ndarray, "answers experts"]:
        """Features of answers: `beta * log_ratio / scale`. Differences of these enter a fit.

        Log-ratios are `log p_k(answer) - log p_0(answer)`, in nats.

        Raises:
            InvalidInputError: another number of experts, or a log-ratio is not finite.
        """
        values = np.asarray(log_ratios, dtype=np.float64)
        if values.shape[-1:] != (len(self.experts),) or not np.all(np.isfinite(values)):
            raise InvalidInputError(
                f"Log-ratios of shape {values.shape} must be finite, one for each of the "
                f"{len(self.experts)} experts."
            )
        return self.beta * values / self.feature_scales

    def unscaled(self, belief: Belief) -> Belief:
        """The belief over coefficients of experts, from one over scaled features."""
        mean = require_coefficients(belief.mean, n_experts=len(self.experts))
        scales = self.feature_scales
        covariance = belief.covariance / np.outer(scales, scales)
        return replace(belief, mean=mean / scales, covariance=covariance)


def save_basis(path: Path, basis: SoupBasis) -> None:
    """Write `soup.json`, whole or not at all."""
    prior = {
        "mean": basis.prior.mean,
        "covariance": basis.prior.covariance,
        "n_users": basis.prior.n_observations,
        "gain": basis.prior.gain,
    }
    content = {**vars(basis), "prior": prior, "settings": basis.settings.model_dump()}
    write_versioned(path, kind=KIND, version=VERSION, content=content)


def load_basis(path: Path, *, base: str | None = None) -> SoupBasis:
    """Read `soup.json`; with a base, that of another base model is refused.

    Raises:
        InvalidInputError: the file is missing, or a number is out of range.
        FormatError: it is of another kind or version, lacks or garbles a field, or is for another
            base model.
    """
    content = read_versioned(path, kind=KIND, version=VERSION)
    with reading(path):
        basis = _parse(content)
    if base is not None and basis.base != base:
        raise FormatError(
            f"The soup file {str(path)!r} is for the base model {basis.base!r}, "
            f"but {base!r} is in use."
        )
    return basis


def _parse(content: JsonObject) -> SoupBasis:
    prior: dict[str, Any] = content["prior"]
    floor: list[Any] | None = content["floor"]
    # `normalised_from` was of stage 2, which is a study now
    settings = {key: one for key, one in content["settings"].items() if key != "normalised_from"}
    return SoupBasis(
        base=str(content["base"]),
        experts=tuple(str(name) for name in content["experts"]),
        objectives=tuple(str(name) for name in content["objectives"]),
        anchors=np.array(content["anchors"], dtype=np.float64),
        beta=float(content["beta"]),
        feature_means=np.array(content["feature_means"], dtype=np.float64),
        feature_scales=np.array(content["feature_scales"], dtype=np.float64),
        effective_rank={str(key): int(rank) for key, rank in content["effective_rank"].items()},
        prior=Belief(
            np.array(prior["mean"], dtype=np.float64),
            np.array(prior["covariance"], dtype=np.float64),
            int(prior["n_users"] if "n_users" in prior else prior["n_people"]),  # its old name
            float(prior["gain"]),
        ),
        floor=None if floor is None else (str(floor[0]), float(floor[1])),
        settings=SoupSettings.checked(settings, source="soup.json"),
        strength=None if content.get("strength") is None else float(content["strength"]),
        experts_key=str(content.get("experts_key", "")),
        strength_from=str(content.get("strength_from", "")),
    )


def _require_covariance(covariance: Float[np.ndarray, "experts experts"]) -> None:
    if np.all(np.isfinite(covariance)) and np.allclose(covariance, covariance.T, atol=1e-10):
        try:
            np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            pass
        else:
            return
    raise InvalidCoefficientsError(
        f"The prior covariance with diagonal {np.diag(covariance).tolist()} is not symmetric "
        "positive definite; add a small multiple of the identity."
    )
