"""From what a request says to a plan, for the server: every way, the certificate, the floor.

`auto` weighs what is certified and what it costs: the portfolio's member takes one pass of the
model and its loss is bounded, so it serves where that bound is small enough; a soup takes one pass
too and can follow any preference, with nothing certified. What was learned of a person is served as
a soup, since the belief is over its coefficients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.plan import reference_plan
from palate.mixture.rollout import CONTROLLER
from palate.mixture.wording import Asked as Worded
from palate.models.chat import format_messages
from palate.portfolio.certificate import alternatives
from palate.portfolio.payoffs import shifted
from palate.portfolio.record import Record
from palate.portfolio.terms import compare
from palate.recipes.mixture_open import OpenedMixture, strengths_for
from palate.recipes.opened import Opened
from palate.recipes.palm_route import LibraryPortfolio
from palate.recipes.ways import Asked, Chosen, choose
from palate.serve.floor import Floor, with_floor
from palate.serve.ways import Certified, Decided, Wanted
from palate.serve.wire.palate import Way

Messages = str | Sequence[Mapping[str, str]]


@dataclass(frozen=True, eq=False)
class LibraryWays:
    """Plans from a library; see `palate.serve.ways.Ways`.

    Attributes:
        opened: Library, base, bank.
        mixture: The library's controller, or `None`.
        floor: That every plan keeps.
        tolerance: Certified loss up to which `auto` takes the portfolio.
    """

    opened: Opened
    mixture: OpenedMixture | None
    floor: Floor | None
    tolerance: float

    @property
    def available(self) -> tuple[Way, ...]:
        """Ways that can be asked for."""
        if not self.opened.library.manifest.experts:
            return ("auto", "base")
        return ("auto", "base", "portfolio", "soup", "output-soup", "mixture")

    def decide(self, messages: Messages, wanted: Wanted) -> Decided:
        """The plan for what is asked, the safety floor kept.

        Raises:
            InvalidInputError: what is known does not fit the library or the way.
        """
        prompt = format_messages(self.opened.base, _messages(messages))
        way, why = self._way(wanted)
        if way == "base":
            return self._floored(prompt, self._base(why))
        if way == "mixture" and self.mixture is not None and wanted.preference is not None:
            return self._controlled(messages, wanted.preference)
        chosen = self._chosen(way, wanted)
        loss = None
        if chosen.way == "portfolio" and self.opened.portfolio is not None:
            loss = self._loss(wanted.preference)
            if wanted.preference is None:
                loss = float(lone_losses(self.opened.portfolio.record).min())
        decided = Decided(
            prompt, chosen.plan, chosen.way, chosen.coefficients, f"{why}{chosen.reason}", loss
        )
        return self._floored(prompt, decided)

    def certified(self, preferences: Float[ndarray, "points objectives"]) -> list[Certified]:
        """What each preference gets from the portfolio.

        Raises:
            InvalidInputError: there is no portfolio, or a preference is off the simplex.
        """
        router = self._portfolio().router
        found: list[Certified] = []
        for point in preferences:
            route = router.route(point)
            margin = route.margin if np.isfinite(route.margin) else None
            found.append(Certified(route.member, route.loss, route.value, margin))
        return found

    def portfolio(self) -> dict[str, Any] | None:
        """Members and certificate as plain data, or `None` without a portfolio."""
        portfolio = self.opened.portfolio
        if portfolio is None:
            return None
        record, certificate = portfolio.record, portfolio.record.certified.certificate
        objectives = record.payoffs.table.objectives
        values = record.certified.lower_values.tolist()
        worst = dict(zip(objectives, certificate.worst_preference, strict=False))  # empty: no gap
        return {
            "members": [
                {"name": name, "values": dict(zip(objectives, row, strict=True))}
                for name, row in zip(record.members, values, strict=True)
            ],
            "certificate": {
                "additive_gap": certificate.additive_gap,
                "multiplicative_gap": certificate.multiplicative_gap,
                "worst_preference": worst,
                "confidence": certificate.confidence,
                "kind": certificate.kind,
                "assumptions": list(certificate.assumptions),
            },
        }

    def _way(self, wanted: Wanted) -> tuple[Way, str]:
        """The way, and why where it was left to us."""
        if wanted.way != "auto":
            return wanted.way, ""
        if not self.opened.library.manifest.experts:
            return "base", "The library has no experts. "
        if wanted.preference is None and wanted.coefficients is None:
            if self.opened.portfolio is None:
                return "base", "Nothing is known of the person yet, and nothing is certified. "
            return "portfolio", "Nothing is known of the person yet. "
        if wanted.is_learned or wanted.preference is None:
            return "soup", ""
        return self._by_certificate(wanted.preference)

    def _by_certificate(self, preference: Mapping[str, float]) -> tuple[Way, str]:
        """The portfolio where its loss is small enough, else a soup: each takes one pass."""
        loss = self._loss(preference)
        if loss is None:
            return "soup", "No portfolio is certified for this library. "
        if loss <= self.tolerance:
            return "portfolio", f"Its certified loss is within {self.tolerance:g}. "
        return "soup", (
            f"The portfolio could cost this preference {loss:.3f}, more than {self.tolerance:g}; "
            "a soup takes one pass too, with nothing certified. "
        )

    def _chosen(self, way: Way, wanted: Wanted) -> Chosen:
        """The plan of a way that the library's own rules make."""
        if way == "portfolio" and wanted.preference is None and self.opened.portfolio is not None:
            return self._cold_start()
        is_soup = way in ("soup", "output-soup")
        coefficients = wanted.coefficients
        if wanted.is_learned and not is_soup:
            coefficients = None  # the preference that the belief comes to
        asked = Asked(way, wanted.preference, coefficients, wanted.strength)
        chosen = choose(self.opened.library.manifest, asked, portfolio=self.opened.portfolio)
        if wanted.is_learned and is_soup:
            return replace(chosen, reason="The coefficients were learned from the person.")
        return chosen

    def _cold_start(self) -> Chosen:
        """The member by which the person who fares worst loses least."""
        portfolio = self._portfolio()
        losses = lone_losses(portfolio.record)
        place = int(losses.argmin())
        name = portfolio.router.names[place]
        coefficients = dict(portfolio.policies[name].coefficients)
        n_policies = portfolio.record.payoffs.n_policies
        is_relative = portfolio.record.certified.certificate.kind == "candidate-relative"
        to = f" relative to the {n_policies} listed policies" if is_relative else ""
        reason = (
            f"Member {name!r} loses a user at most {losses[place]:.3f}{to}, the least of all "
            "members."
        )
        return Chosen(portfolio.router.plans[place], "portfolio", coefficients, reason)

    def _loss(self, preference: Mapping[str, float] | None) -> float | None:
        """Certified loss of the portfolio's member, or `None` where nothing is certified."""
        portfolio = self.opened.portfolio
        if portfolio is None or preference is None:
            return None
        names = self.opened.library.manifest.objective_names
        if any(name not in names for name in preference):
            return None  # the way that is taken says so
        point = np.array([preference.get(name, 0.0) for name in names])
        return portfolio.route(point).loss

    def _controlled(self, messages: Messages, preference: Mapping[str, float]) -> Decided:
        """The mixture under the library's controller."""
        mixture = cast(OpenedMixture, self.mixture)
        manifest = self.opened.library.manifest
        strengths = strengths_for(manifest, preference)
        asked = Worded(_last_text(messages), strengths)
        extra = () if self.floor is None else (self.floor.expert,)
        plan = mixture.wording.plan(asked, controller=CONTROLLER, extra=extra)
        known = "was" if mixture.is_trained_on(preference) else "was not"
        why = (
            "The library's controller gives the shares, new at every token; it "
            f"{known} trained on this combination."
        )
        named = dict(zip(manifest.expert_names, strengths, strict=True))
        shown = {name: share for name, share in named.items() if share > 0}
        return Decided(mixture.wording.full_text(asked), plan, "mixture", shown, why)

    def _base(self, why: str) -> Decided:
        plan = reference_plan(n_experts=self.opened.bank.n_experts)
        return Decided("", plan, "base", {}, f"{why}One pass of the base, no expert.")

    def _floored(self, prompt: str, decided: Decided) -> Decided:
        plan = with_floor(decided.plan, self.floor)
        if self.floor is None or plan is decided.plan:
            return replace(decided, prompt=prompt)
        name, least = self.floor.name, self.floor.coefficient
        coefficients = dict(decided.coefficients)
        coefficients[name] = max(coefficients.get(name, 0.0), least)
        why = f"{decided.why} The safety floor holds {name!r} at {least:g} or more."
        return replace(decided, prompt=prompt, plan=plan, coefficients=coefficients, why=why)

    def _portfolio(self) -> LibraryPortfolio:
        if self.opened.portfolio is None:
            raise InvalidInputError(
                "The library has no portfolio.json; make one with `palate portfolio select`."
            )
        return self.opened.portfolio


def lone_losses(record: Record) -> Float[ndarray, " members"]:
    """What anybody loses at most by each member, if it alone served everybody.

    The loss of one member is convex in the preference, so it is largest at a corner of the simplex.
    """
    comparison = compare(shifted(record.payoffs, record.terms.offset), record.terms)
    most = [alternatives(comparison, members=[index]).max(axis=0) for index in record.indices()]
    return np.maximum((np.array(most) - record.certified.lower_values).max(axis=1), 0.0)


def _messages(messages: Messages) -> str | list[dict[str, str]]:
    return messages if isinstance(messages, str) else [dict(message) for message in messages]


def _last_text(messages: Messages) -> str:
    """What a mixture's experts read beside their sentences: the last thing the person said."""
    if isinstance(messages, str):
        return messages
    return messages[-1]["content"]
