"""From coefficients to a plan: every soup, and every published relative of it, as data.

| way | rows | pool |
|---|---|---|
| parameter soup | 1, dense coefficients | single |
| rewarded soup | the same, coefficients on the simplex | single |
| output soup | reference and one per active expert | log-linear |
| MOD | one per active expert, coefficients on the simplex | log-linear, no reference |
| DeRa | reference and one expert | log-linear |

The factor mean of Personalized Soups is no sum of adapters and therefore no plan; it exists as
`palate.soup.merge.factor_mean` only.

Source: Spectral Souping, arXiv 2605.20408; MOD, arXiv 2406.18853; DeRa, arXiv 2402.02992; rewarded
soups, arXiv 2306.04488.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan, one_hot, output_soup_plan, parameter_soup_plan
from palate.core.simplex import require_simplex
from palate.soup.pool import Coefficients, require_coefficients

SoupMethod = Literal["soup", "output-soup"]


def soup_plan(coefficients: Coefficients, *, method: SoupMethod) -> Plan:
    """The plan that serves these coefficients.

    Args:
        coefficients: `[experts]`, any real numbers, in bank order.
        method: `soup` adds the experts' parameters and runs the model once; `output-soup` pools their
            outputs and runs it once per active expert and for the reference.

    Raises:
        InvalidCoefficientsError: a coefficient is not finite.
        InvalidInputError: the way is unknown.
    """
    values = require_coefficients(coefficients, n_experts=len(coefficients)).tolist()
    if method == "soup":
        return parameter_soup_plan(values)
    if method == "output-soup":
        return output_soup_plan(values)
    raise InvalidInputError(f"The way {method!r} is no soup; use 'soup' or 'output-soup'.")


def mod_plan(shares: Coefficients) -> Plan:
    """Multi-objective decoding: experts pooled log-linearly, no reference.

    The same as the output soup with these coefficients, which must lie on the simplex.

    Raises:
        InvalidPreferenceError: they do not.

    Source:
        MOD, arXiv 2406.18853.
    """
    point = _exact_simplex(shares)
    return output_soup_plan(point)


def dera_plan(*, expert: int, strength: float, n_experts: int) -> Plan:
    """One expert, weaker or stronger: `(1 - strength) l_reference + strength l_expert`.

    It is the expert's own plan at strength 1, the base model's at 0.

    Raises:
        InvalidCoefficientsError: the expert does not exist, or the strength is not finite.

    Source:
        DeRa, arXiv 2402.02992.
    """
    chosen = one_hot(index=expert, n_experts=n_experts)
    return output_soup_plan([strength * c for c in chosen])


def rewarded_soup_plan(shares: Coefficients) -> Plan:
    """The mean of the experts' parameters, shares on the simplex.

    The products `B_k A_k` are averaged, as averaging full models would.

    Raises:
        InvalidPreferenceError: the shares lie off the simplex.

    Source:
        Rewarded soups, arXiv 2306.04488.
    """
    return parameter_soup_plan(_exact_simplex(shares))


def reward_space_plan(
    preference: Float[ndarray, " objectives"] | Sequence[float], *, method: SoupMethod
) -> Plan:
    """A stated preference used as coefficients, one expert per objective in the same order.

    Raises:
        InvalidPreferenceError: the preference lies off the simplex.
    """
    return soup_plan(_exact_simplex(preference), method=method)


def _exact_simplex(shares: Coefficients) -> list[float]:
    # the reference drops out only if the float sum is exactly one: the largest share takes up the
    # rounding
    point = require_simplex(np.asarray(shares, dtype=np.float64), name="shares")
    largest = int(np.argmax(point))
    point[largest] = 0.0
    point[largest] = 1.0 - float(sum(point.tolist()))
    return point.tolist()
