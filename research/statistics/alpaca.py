"""Judgments of AlpacaEval's annotators as win rates with intervals, ties apart, at equal length.

    python -m research.statistics.alpaca annotations.json --generator palate

Annotations are a JSON list with `output_1`, `generator_1`, `output_2`, `generator_2`, `preference`.
A preference of 1 is for the first output, 2 for the second; what lies between is the probability of
the second, plus one. 1.5 and, in old files, 0 are ties; null is a judgment that failed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import read_json
from palate.core.seeds import generator_for
from palate.metrics.intervals import Interval, bootstrap_interval
from palate.metrics.win_rates import LengthControl, WinRates, length_controlled_rate, win_rates
from research.command_line import IsJson, print_result, run

OLD_TIE, TIE = 0.0, 1.5


@dataclass(frozen=True)
class Judgment:
    """An annotator's judgment of the answers to one instruction."""

    instruction: str
    score: float  # probability in [0, 1] that ours is better; 0.5 is a tie
    length_difference: int  # characters of ours less those of the other


@dataclass(frozen=True)
class AlpacaRates:
    """Judgments as win rates."""

    generator: str  # ours
    rival: str  # the other, or all others
    annotator: str
    n_failed: int  # judgments without a preference, which are left out
    win_rate: Interval  # mean probability that ours is better, as on AlpacaEval's leaderboard
    rates: WinRates  # of verdicts: above one half is won, one half is a tie
    controlled: LengthControl  # at equal length, by `palate.metrics.win_rates`

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "generator": self.generator,
            "rival": self.rival,
            "annotator": self.annotator,
            "n": self.win_rate.n,
            "n_failed": self.n_failed,
            "win_rate": self.win_rate.to_json(),
            "verdicts": self.rates.to_json(),
            "length_controlled": self.controlled.rate.to_json(),
            "length_effect": self.controlled.length_effect,
        }


def read_rates(path: Path, *, generator: str | None = None) -> AlpacaRates:
    """The win rates that an annotations file holds; intervals are clustered by instruction.

    By default the generator that is the second output everywhere wins.

    Raises:
        InvalidInputError: the file is missing or empty, the generator does not occur, several could
            be meant, or fewer than two instructions are judged.
        FormatError: an entry lacks an output or holds no preference.
    """
    rows = _rows(path, what="annotations file")
    names = {generator} if generator else {str(row.get("generator_2")) for row in rows}
    if len(names) != 1 or names == {"None"}:
        raise InvalidInputError(
            f"The second outputs of {str(path)!r} are by {', '.join(sorted(names))}; say whose "
            "wins are counted."
        )
    (ours,) = names
    own = [row for row in rows if ours in (row.get("generator_1"), row.get("generator_2"))]
    if not own:
        raise InvalidInputError(f"Nothing in {str(path)!r} was written by {ours!r}; name another.")
    judgments = [_judgment(row, ours, place=f"An entry of {str(path)!r}") for row in own]
    judged = [one for one in judgments if one is not None]
    instructions = [one.instruction for one in judged]
    if len(set(instructions)) < 2:
        raise InvalidInputError(
            f"{len(set(instructions))} instructions of {str(path)!r} are judged for {ours!r}; "
            "an interval needs two."
        )
    scores = np.array([one.score for one in judged])
    verdicts = np.where(scores == 0.5, 0.5, (scores > 0.5).astype(float))
    rivals = {str(row[name]) for row in own for name in ("generator_1", "generator_2")} - {ours}
    return AlpacaRates(
        generator=ours,
        rival=", ".join(sorted(rivals)),
        annotator=", ".join(sorted({str(row.get("annotator", "")) for row in own})),
        n_failed=len(own) - len(judged),
        win_rate=bootstrap_interval(
            scores, generator=generator_for(0, "alpaca", "mean"), clusters=instructions
        ),
        rates=win_rates(verdicts, clusters=instructions),
        controlled=length_controlled_rate(
            scores,
            length_differences=[one.length_difference for one in judged],
            clusters=instructions,
        ),
    )


def _judgment(row: Mapping[str, Any], ours: str, *, place: str) -> Judgment | None:
    preference = row.get("preference")
    if preference is None:
        return None
    texts = row.get("output_1"), row.get("output_2")
    if not all(isinstance(text, str) for text in (*texts, row.get("instruction"))):
        raise FormatError(f"{place} lacks an instruction or an output; it is no annotation.")
    is_number = isinstance(preference, int | float) and not isinstance(preference, bool)
    if not is_number or not (preference == OLD_TIE or 1 <= preference <= 2):
        raise FormatError(
            f"{place} has the preference {preference!r}; AlpacaEval writes 1 to 2, 0 or null."
        )
    for_second = (TIE if preference == OLD_TIE else float(preference)) - 1.0
    longer_second = len(str(texts[1])) - len(str(texts[0]))
    if row.get("generator_2") == ours:
        return Judgment(str(row["instruction"]), for_second, longer_second)
    return Judgment(str(row["instruction"]), 1.0 - for_second, -longer_second)


def _rows(path: Path, *, what: str) -> list[dict[str, Any]]:
    content = read_json(path, what=what)
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise FormatError(f"The {what} {str(path)!r} is no list of objects; give AlpacaEval's.")
    if not content:
        raise InvalidInputError(f"The {what} {str(path)!r} is empty; give at least one entry.")
    return content


def main(
    annotations: Annotated[Path, typer.Argument(help="annotations.json of AlpacaEval.")],
    *,
    generator: Annotated[
        str | None, typer.Option(help="Whose wins; by default the second output's.")
    ] = None,
    is_json: IsJson = False,
) -> None:
    """Win rates with intervals from AlpacaEval's annotations."""
    print_result(read_rates(annotations, generator=generator).to_json(), is_json=is_json)


if __name__ == "__main__":
    run(main)
