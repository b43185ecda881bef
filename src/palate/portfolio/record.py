"""Record: a selected portfolio as a file that anybody can check without a model.

The file holds the payoff table, the members, the terms and the certificate. Checking it means
computing the certificate again from the first three and comparing every number; a digest over the
whole content catches what does not enter the certificate. The proof needs no solver:
`additive_gap` is the largest entry of `instead - sum_k mixture_k lower_values_k`. Where there is
nothing to compare with, the gap and its proof are null.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from numpy import ndarray
from pydantic import TypeAdapter

from palate.core.errors import CheckFailedError, FormatError, InvalidInputError
from palate.core.files import hash_value, is_finite_number, read_versioned, reading, write_versioned
from palate.portfolio.certificate import Certified, certify
from palate.portfolio.payoff_file import parse_payoffs, render_payoffs
from palate.portfolio.payoffs import Payoffs
from palate.portfolio.terms import Terms

KIND = "palate-portfolio"
VERSION = 1
AGREEMENT = 1e-9  # between a stored and a recomputed number
_TERMS = TypeAdapter(Terms)


@dataclass(frozen=True, eq=False)
class Record:
    """A portfolio as it is stored."""

    payoffs: Payoffs  # what the certificate is about
    members: tuple[str, ...]  # in the order of the table
    refused: tuple[str, ...]  # policies that break the floor
    terms: Terms
    selection: Mapping[str, Any]  # how members were chosen; not part of the proof
    certified: Certified

    def indices(self) -> list[int]:
        """The members' rows in the table."""
        return [self.payoffs.table.policies.index(name) for name in self.members]


def render_record(record: Record) -> dict[str, Any]:
    """The record as plain data, with its digest."""
    certificate = record.certified.certificate
    content: dict[str, Any] = {
        "objectives": list(record.payoffs.table.objectives),
        "members": list(record.members),
        "size": len(record.members),
        "size_bound": record.certified.size_bound,
        "size_needed": record.certified.size_needed,
        "refused": list(record.refused),
        "terms": {**asdict(record.terms), "floor": _list_or_null(record.terms.floor)},
        "selection": dict(record.selection),
        "certificate": {
            **asdict(certificate),
            "worst_preference": list(certificate.worst_preference),
            "assumptions": list(certificate.assumptions),
            "worst_share_preference": _list_or_null(record.certified.worst_share_preference),
        },
        "proof": {
            "instead": _list_or_null(record.certified.instead),
            "mixture": _list_or_null(record.certified.mixture),
            "lower_values": record.certified.lower_values.tolist(),
        },
        "payoffs": render_payoffs(record.payoffs),
    }
    return {**content, "sha256": hash_value(content)}


def save_record(path: Path, record: Record) -> None:
    """Write the record, atomically."""
    write_versioned(path, kind=KIND, version=VERSION, content=render_record(record))


def load_record(path: Path) -> Record:
    """The record in a file, with the certificate computed again; it is not checked here.

    Raises:
        InvalidInputError: the file is missing or not JSON, or its table is not usable.
        FormatError: the file is of another kind or version, or lacks a part.
    """
    content = read_versioned(path, kind=KIND, version=VERSION)
    with reading(path, remedy="select it anew"):
        return _parsed(content)


def _parsed(content: Mapping[str, Any]) -> Record:
    """The record that plain data describe; what follows from the table is recomputed."""
    payoffs = parse_payoffs(content["payoffs"])
    members = tuple(str(name) for name in content["members"])
    terms = _TERMS.validate_python(content["terms"])
    refused = tuple(str(name) for name in content["refused"])
    selection = dict(content["selection"])
    unknown = [name for name in members if name not in payoffs.table.policies]
    if unknown:
        raise InvalidInputError(
            f"The member {unknown[0]!r} is not in the portfolio file's payoff table."
        )
    indices = [payoffs.table.policies.index(name) for name in members]
    certified = certify(payoffs, members=indices, terms=terms)
    return Record(payoffs, members, refused, terms, selection, certified)


def verify_record(path: Path) -> Record:
    """The record, if every number in the file follows from the table it holds.

    Raises:
        CheckFailedError: a number or a name was altered; the message names the first places.
        InvalidInputError: the file is missing or not JSON.
        FormatError: the file is of another kind or version.
    """
    stored = read_versioned(path, kind=KIND, version=VERSION)
    try:
        with reading(path, remedy="select it anew"):
            record = _parsed(stored)
    except (InvalidInputError, FormatError) as error:
        raise CheckFailedError(
            f"The portfolio file {str(path)!r} does not hold a table that can be certified: {error}"
        ) from error
    content = {key: value for key, value in stored.items() if key not in ("kind", "schema_version")}
    places = [place for place in differences(content, render_record(record)) if place != "sha256"]
    digest = hash_value({key: value for key, value in content.items() if key != "sha256"})
    if digest != content.get("sha256") and not places:
        places = ["a part that does not enter the certificate (the digest differs)"]
    if places:
        raise CheckFailedError(
            f"The portfolio file {str(path)!r} was altered: {', '.join(places[:5])} "
            "do not follow from its payoff table; select the portfolio anew."
        )
    return record


def differences(stored: Any, expected: Any, *, place: str = "") -> list[str]:
    """Places where two plain values differ by more than rounding."""
    if isinstance(expected, dict) and isinstance(stored, dict):
        keys = [*expected, *(key for key in stored if key not in expected)]
        parts = [
            (stored.get(key), expected.get(key), f"{place}.{key}" if place else str(key))
            for key in keys
        ]
    elif isinstance(expected, list) and isinstance(stored, list) and len(expected) == len(stored):
        parts = [
            (left, right, f"{place}[{index}]")
            for index, (left, right) in enumerate(zip(stored, expected, strict=True))
        ]
    else:
        return [] if _is_same(stored, expected) else [place]
    return [
        inner for left, right, where in parts for inner in differences(left, right, place=where)
    ]


def _is_same(stored: Any, expected: Any) -> bool:
    if is_finite_number(expected) and is_finite_number(stored):
        return abs(stored - expected) <= AGREEMENT * max(1.0, abs(expected))
    return bool(stored == expected)


def _list_or_null(values: Sequence[Any] | ndarray | None) -> list[Any] | None:
    if values is None:
        return None
    return values.tolist() if isinstance(values, ndarray) else list(values)
