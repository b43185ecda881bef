"""Settings of soups that are learned from feedback."""

from pydantic import Field

from palate.core.settings import Settings


class SoupSettings(Settings):
    """How far a person's soup may go, and which experts take part.

    Attributes:
        budget: Largest mean KL to the base model, nats per token.
        early_budget: The same while a person has said little.
        largest_scale: How many times the believed coefficients may be enlarged to spend the
            budget; 1 only shrinks.
        n_early: Feedback items below which `early_budget` holds.
        active_threshold: An expert takes part when `|coefficient| * sd of its tilt` reaches this.
        confidence: Of intervals and of the predicted gain.
    """

    budget: float = Field(default=0.2, gt=0)
    early_budget: float = Field(default=0.1, gt=0)
    largest_scale: float = Field(default=1.0, gt=0)
    n_early: int = Field(default=10, ge=0)
    active_threshold: float = Field(default=0.02, ge=0)
    confidence: float = Field(default=0.95, gt=0, lt=1)


def settings_for(expert_kl: float) -> dict[str, float]:
    """What `soup.json` has unless told otherwise: soups go as far as experts do.

    Half as far while little is known. Chosen on development people of the small world
    (docs/log.md).

    Args:
        expert_kl: Mean KL per token of the experts, nats.
    """
    return {"budget": expert_kl, "early_budget": expert_kl / 2, "largest_scale": 2.0}
