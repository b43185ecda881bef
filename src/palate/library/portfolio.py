"""The portfolio of a library, compared with its experts, ready to route."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from palate.core.errors import FormatError
from palate.library.folder import LibraryFolder
from palate.library.policy import BASE, Policy, load_policy
from palate.portfolio.certificate import NOTHING_KNOWN, alternatives
from palate.portfolio.payoffs import shifted
from palate.portfolio.record import Record, verify_record
from palate.portfolio.route import Route, Router, router_from_record
from palate.portfolio.terms import compare

POLICIES, PORTFOLIO = "policies", "portfolio.json"


@dataclass(frozen=True, eq=False)
class LibraryPortfolio:
    """A library's certified members."""

    record: Record  # members and certificate
    router: Router  # from a preference to a member
    policies: Mapping[str, Policy]  # by member

    def lone_losses(self) -> Float[np.ndarray, " members"]:
        """`[members]`: the largest loss of any user, if this member alone served all users.

        The loss of one member is convex in the preference, so it is largest at a corner of the
        simplex. Relative to the listed policies where the certificate is.
        """
        record = self.record
        comparison = compare(shifted(record.payoffs, record.terms.offset), record.terms)
        if len(record.payoffs.table.policies) == 1 and comparison.ceiling is None:
            return np.array([np.inf])  # the only listed policy: nothing is known beyond it
        most = [alternatives(comparison, members=[k]).max(axis=0) for k in record.indices()]
        return np.maximum((np.array(most) - record.certified.lower_values).max(axis=1), 0.0)

    def reason(self, route: Route) -> str:
        """The member and its certificate in one sentence."""
        certificate = self.record.certified.certificate
        n_policies = self.record.payoffs.n_policies
        serves = f"Member {route.member!r} of {len(self.record.members)} serves"
        if route.loss is None or certificate.additive_gap is None:
            return f"{serves}; {NOTHING_KNOWN}, and all {n_policies} of them are members."
        against = (
            f"relative to the {n_policies} listed policies"
            if certificate.kind == "candidate-relative"
            else "relative to the best possible policy under the certificate's assumptions"
        )
        return (
            f"{serves}; {against}, a user loses at most {route.loss:.3f} with this preference and "
            f"at most {certificate.additive_gap:.3f} with any (confidence "
            f"{certificate.confidence:.0%})."
        )


def open_portfolio(library: LibraryFolder) -> LibraryPortfolio | None:
    """The portfolio in the library's folder, or `None` where there is none.

    Raises:
        InvalidInputError: the file is not JSON.
        CheckFailedError: its table is not usable, or a number does not follow from it.
        FormatError: it is of another kind or version, or of other experts or objectives.
    """
    path = library.folder / PORTFOLIO
    if not path.is_file():
        return None
    record = verify_record(path)
    manifest = library.manifest
    if record.payoffs.table.objectives != manifest.objective_names:
        raise FormatError(
            f"The portfolio {str(path)!r} is for the objectives "
            f"{', '.join(record.payoffs.table.objectives)}, but the library's are "
            f"{', '.join(manifest.objective_names)}; select it anew."
        )
    policies = {name: _policy(library, name) for name in record.members}
    plans = {name: policy.plan(manifest.expert_names) for name, policy in policies.items()}
    return LibraryPortfolio(record, router_from_record(record, plans=plans), policies)


def _policy(library: LibraryFolder, name: str) -> Policy:
    """A member: from its file, the expert of that name, or the base alone."""
    path = library.folder / POLICIES / f"{name}.json"
    manifest = library.manifest
    if not path.is_file():
        if name in manifest.expert_names:
            anchor = manifest.expert(name).anchor
            shares = None if anchor.is_signed else anchor.direction
            return Policy(name, "expert", shares, {name: 1.0})
        if name == BASE:
            return Policy(BASE, "base", None, {})
        raise FormatError(
            f"The portfolio of the library {str(library.folder)!r} has the member {name!r}, which "
            "is no expert of the library; build it again with its portfolio, or select anew."
        )
    stored = load_policy(path)
    for expert, key in stored.experts.items():
        if expert not in manifest.expert_names or manifest.expert(expert).key != key:
            raise FormatError(
                f"The portfolio's member {name!r} was certified with another expert {expert!r} "
                "than the library has; build the library again with its portfolio."
            )
    return stored.policy
