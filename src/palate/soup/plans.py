"""From a preference to coefficients, and from these to a plan: soups and two relatives, as data.

| method | rows | pool |
|---|---|---|
| parameter soup | 1, dense coefficients | single |
| rewarded soup | the same, coefficients on the simplex | single |
| output soup | reference and one per active expert | log-linear |
| MOD | one per active expert, coefficients on the simplex | log-linear, no reference |

The factor mean of Personalized Soups is no sum of adapters and therefore no plan.

Without feedback the entries of a known preference are coefficients, as in MOD and in PAD, arXiv
2410.04070; optimal values are not linear in the reward, so fitted ones beat these (S2).

Source: Spectral Souping, arXiv 2605.20408; MOD, arXiv 2406.18853; rewarded soups, arXiv 2306.04488.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan, output_soup_plan, parameter_soup_plan
from palate.core.simplex import require_simplex
from palate.soup.states import ByExpert, Coefficients, require_coefficients


def reward_space_coefficients(
    preference: Float[np.ndarray, " objectives"],
    *,
    anchors: Float[np.ndarray, "experts objectives"],
) -> ByExpert:
    """The smallest coefficients with `sum_k lambda_k anchor_k = preference`.

    With one expert per objective these are the preference's own entries. Where the anchors do not
    span the preference, the closest combination in least squares.

    Raises:
        InvalidInputError: lengths differ, or a number is not finite.
    """
    wanted, matrix = require_target(preference, anchors.T)
    return np.linalg.lstsq(matrix, wanted, rcond=None)[0]


def require_target(
    target: Float[np.ndarray, " rows"], basis: Float[np.ndarray, "rows experts"]
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, "rows experts"]]:
    """Target and basis as arrays; InvalidInputError where they do not fit or are not finite."""
    wanted, matrix = np.asarray(target, dtype=np.float64), np.asarray(basis, dtype=np.float64)
    if matrix.ndim != 2 or wanted.shape != matrix.shape[:1] or not matrix.size:
        raise InvalidInputError(
            f"A target of shape {wanted.shape} does not fit a basis of shape {matrix.shape}; "
            "give one row of the basis per entry."
        )
    if not (np.all(np.isfinite(wanted)) and np.all(np.isfinite(matrix))):
        raise InvalidInputError("The target or the basis holds a number that is not finite.")
    return wanted, matrix


SoupMethod = Literal["soup", "output-soup"]


def soup_plan(coefficients: Coefficients, *, method: SoupMethod) -> Plan:
    """The plan that serves these coefficients.

    `soup` adds the experts' parameters and runs the model once; `output-soup` pools their outputs
    and runs it once per active expert and for the reference.

    Raises:
        InvalidCoefficientsError: a coefficient is not finite.
        InvalidInputError: the method is unknown.
    """
    values = require_coefficients(coefficients, n_experts=len(coefficients)).tolist()
    if method == "soup":
        return parameter_soup_plan(values)
    if method == "output-soup":
        return output_soup_plan(values)
    raise InvalidInputError(f"The method {method!r} is no soup; use 'soup' or 'output-soup'.")


def mod_plan(shares: Coefficients) -> Plan:
    """Multi-objective decoding: experts pooled log-linearly, no reference.

    The same as the output soup with these coefficients, which must lie on the simplex.

    Raises:
        InvalidPreferenceError: they do not.
    """
    return output_soup_plan(_exact_simplex(shares))


def rewarded_soup_plan(shares: Coefficients) -> Plan:
    """The mean of the experts' parameters, shares on the simplex.

    The products `B_k A_k` are averaged, as averaging full models would.

    Raises:
        InvalidPreferenceError: the shares lie off the simplex.
    """
    return parameter_soup_plan(_exact_simplex(shares))


def _exact_simplex(shares: Coefficients) -> list[float]:
    # the reference drops out only if the float sum is exactly one: the largest share takes up the
    # rounding
    point = require_simplex(np.asarray(shares, dtype=np.float64), name="shares")
    largest = int(np.argmax(point))
    point[largest] = 0.0
    point[largest] = 1.0 - float(sum(point.tolist()))
    return point.tolist()
