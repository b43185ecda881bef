"""Answers of one way to all people and prompts, judged, as rows; none is made twice."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np

from palate.core.protocols import Request
from palate.core.seeds import derive_seed
from palate.evaluate.rows import AnswerRow, Results, answer_hash
from palate.evaluate.suite import PersonSettings
from palate.recipes.evaluate_judges import Asked, SuiteJudge
from palate.recipes.evaluate_kit import Kit
from palate.recipes.evaluate_ways import Arm, way_named

BLOCK = 192  # answers that are made, judged and written at a time
BASE = "base"
_PACKAGES = ("palate", "torch")


@dataclass(frozen=True)
class Made:
    """An answer that was generated.

    Attributes:
        text: The answer.
        n_tokens: Of it.
        n_drawn_tokens: Drawn for it, proposals included.
        log_ratio: See `AnswerRow`.
    """

    text: str
    n_tokens: int
    n_drawn_tokens: int
    log_ratio: float | None


@dataclass(frozen=True, eq=False)
class Wanted:
    """An answer row that is missing."""

    person: PersonSettings
    arm: Arm
    prompt: str
    copy: int
    answer: str


def fill_way(
    kit: Kit, name: str, prompts: Sequence[str], *, judge: SuiteJudge, results: Results
) -> None:
    """Append the missing rows of one way to these prompts.

    Texts that another way or person already has (the same request to the same adapters) are taken
    from there: portfolios of different sizes share members.

    Raises:
        InvalidInputError: the way is unknown, or the library lacks what it needs.
    """
    wanted = _missing(kit, name, prompts, results)
    known = {
        row.answer: Made(row.text, row.n_tokens, row.n_drawn_tokens, row.log_ratio)
        for row in results.answers
    }
    references = {
        (row.prompt, row.copy): row.text
        for row in results.answers
        if row.way == BASE and row.seed == kit.seed
    }
    for start in range(0, len(wanted), BLOCK):
        block = wanted[start : start + BLOCK]
        known |= _make(kit, [one for one in block if one.answer not in known])
        rows = [_unjudged(kit, name, one, known[one.answer]) for one in block]
        judged = judge.judge(
            [
                Asked(row.prompt, row.text, references.get((row.prompt, row.copy), row.text))
                for row in rows
            ]
        )
        results.append(
            replace(
                row,
                rewards=dict(zip(kit.objectives, rewards.tolist(), strict=True)),
                utility=float(kit.shares(one.person) @ rewards),
                is_well_formed=judged.is_well_formed and judged.is_well_formed[place],
            )
            for place, (one, row, rewards) in enumerate(
                zip(block, rows, judged.rewards, strict=True)
            )
        )


def _missing(kit: Kit, name: str, prompts: Sequence[str], results: Results) -> list[Wanted]:
    way = way_named(name)
    places = [
        (person, prompt, copy)
        for person in kit.people
        for prompt in prompts
        for copy in range(kit.suite.n_per_prompt)
        if ("answer", name, person.name, kit.seed, prompt, copy) not in results
    ]
    people = {person.name: person for person, _, _ in places}
    arms = {who: way(kit, person) for who, person in people.items()}
    return [
        Wanted(person, arm, prompt, copy, _hash(kit, person, arm, arm.request(prompt, copy)))
        for person, prompt, copy in places
        for arm in (arms[person.name],)
    ]


def _hash(kit: Kit, person: PersonSettings, arm: Arm, request: Request) -> str:
    return answer_hash(
        library=kit.fingerprint,
        source=arm.source,
        plan=request.plan.to_json(),
        prompt=request.prompt,
        seed=request.seed,
        max_tokens=request.sampling.max_tokens,
        chosen_for=dict(person.preference) if arm.n_proposals > 1 else None,
        adapter=person.name if arm.source == "factor means" else None,
    )


def _make(kit: Kit, wanted: Sequence[Wanted]) -> dict[str, Made]:
    """Each different answer once."""
    different = {one.answer: one for one in wanted}
    groups: dict[int, list[Wanted]] = {}
    for one in different.values():
        groups.setdefault(id(one.arm.engine), []).append(one)
    made: dict[str, Made] = {}
    for group in groups.values():
        if group[0].arm.n_proposals > 1:
            made |= _best_of(kit, group)
        else:
            made |= _plain(kit, group)
    return made


def _plain(kit: Kit, group: Sequence[Wanted]) -> dict[str, Made]:
    requests = [one.arm.request(one.prompt, one.copy) for one in group]
    answers = group[0].arm.engine.generate(requests)
    base = kit.base_log_probs([one.prompt for one in group], [a.tokens for a in answers])
    return {
        one.answer: Made(a.text, len(a.tokens), len(a.tokens), float(sum(a.log_probs)) - below)
        for one, a, below in zip(group, answers, base, strict=True)
    }


def _best_of(kit: Kit, group: Sequence[Wanted]) -> dict[str, Made]:
    """The proposals are drawn once and shared; everybody chooses their own."""
    places = list(dict.fromkeys((one.prompt, one.copy) for one in group))
    n = group[0].arm.n_proposals
    requests: list[Request] = []
    for prompt, copy in places:
        first = group[0].arm.request(prompt, copy)
        requests += [
            replace(first, seed=derive_seed(first.seed, "proposal", turn)) for turn in range(n)
        ]
    answers = group[0].arm.engine.generate(requests)
    asked = [prompt for prompt, _ in places for _ in range(n)]
    scores = kit.rewards.score(asked, [answer.text for answer in answers])
    made: dict[str, Made] = {}
    for one in group:
        start = places.index((one.prompt, one.copy)) * n
        worth = scores[start : start + n] @ kit.shares(one.person)
        best = answers[start + int(np.argmax(worth))]
        drawn = sum(len(answer.tokens) for answer in answers[start : start + n])
        made[one.answer] = Made(best.text, len(best.tokens), drawn, None)
    return made


def _unjudged(kit: Kit, name: str, one: Wanted, made: Made) -> AnswerRow:
    return AnswerRow(
        way=name,
        person=one.person.name,
        seed=kit.seed,
        prompt=one.prompt,
        copy=one.copy,
        text=made.text,
        rewards={},
        utility=0.0,
        coefficients=dict(one.arm.coefficients),
        judge=kit.suite.judge.label,
        versions=versions_line(kit),
        answer=one.answer,
        n_tokens=made.n_tokens,
        n_drawn_tokens=made.n_drawn_tokens,
        n_rows=one.arm.n_rows,
        log_ratio=made.log_ratio,
    )


def versions_line(kit: Kit) -> str:
    """Packages and library, in one line."""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return f"{packages}, library {kit.fingerprint}"
