"""Answers of one entrant to all users and prompts, judged, as rows; none is made twice."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

from palate.core.decision import Decision
from palate.evaluate.context import Context
from palate.evaluate.entrant_name import BASE
from palate.evaluate.entrants import Entrant
from palate.evaluate.judges import Asked, SuiteJudge
from palate.evaluate.rows import AnswerRow, Results, answer_hash
from palate.evaluate.suite import UserSettings
from palate.library.generate import generate_all

BLOCK = 192  # answers that are made, judged and written at a time
_PACKAGES = ("palate", "torch")


@dataclass(frozen=True)
class Made:
    """An answer that was generated.

    Attributes:
        text: The answer.
        n_tokens: Of it.
        lead: See `AnswerRow`.
        log_ratio: See `AnswerRow`.
    """

    text: str
    n_tokens: int
    lead: float
    log_ratio: float | None


@dataclass(frozen=True, eq=False)
class Wanted:
    """An answer row that is missing."""

    user: UserSettings
    prompt: str
    copy: int
    decision: Decision
    answer: str


def fill_entrant(
    context: Context, name: str, prompts: Sequence[str], *, judge: SuiteJudge, results: Results
) -> None:
    """Append the missing rows of one entrant to these prompts.

    Texts that another entrant or user already has (the same plan, words and seed) are taken from
    there: what `auto` decides on is mostly another entrant's.

    Raises:
        InvalidInputError: the method is unknown, or the library lacks what it needs.
    """
    entrant = context.entrant(name)
    wanted = _missing(context, entrant, prompts, results)
    known = {
        row.answer: Made(row.text, row.n_tokens, row.lead, row.log_ratio) for row in results.answers
    }
    references = {
        (row.user, row.prompt, row.copy): row.text
        for row in results.answers
        if row.method == BASE and row.seed == context.task.seed
    }
    for start in range(0, len(wanted), BLOCK):
        block = wanted[start : start + BLOCK]
        known |= _make(context, entrant, [one for one in block if one.answer not in known])
        rows = [_unjudged(context, entrant, one, known[one.answer]) for one in block]
        asked = [
            Asked(row.prompt, row.text, references.get((row.user, row.prompt, row.copy), row.text))
            for row in rows
        ]
        results.append(_judged(context, block, rows, judge, asked))


def _judged(
    context: Context,
    block: Sequence[Wanted],
    rows: Sequence[AnswerRow],
    judge: SuiteJudge,
    asked: Sequence[Asked],
) -> list[AnswerRow]:
    judged = judge.judge(asked)
    return [
        replace(
            row,
            rewards=dict(zip(context.objectives, rewards.tolist(), strict=True)),
            utility=float(context.shares(one.user) @ rewards),
            is_well_formed=judged.is_well_formed and judged.is_well_formed[place],
        )
        for place, (one, row, rewards) in enumerate(zip(block, rows, judged.rewards, strict=True))
    ]


def _missing(
    context: Context, entrant: Entrant, prompts: Sequence[str], results: Results
) -> list[Wanted]:
    seed = context.task.seed
    found: list[Wanted] = []
    for user in context.task.users:
        for prompt in prompts:
            copies = [
                copy
                for copy in range(context.task.n_per_prompt)
                if ("answer", entrant.name, user.name, seed, prompt, copy) not in results
            ]
            if copies:
                decision = entrant.decide(user, prompt)
                found += [
                    Wanted(
                        user,
                        prompt,
                        copy,
                        decision,
                        _hash(
                            context, entrant, decision, context.draw_seed(user.name, prompt, copy)
                        ),
                    )
                    for copy in copies
                ]
    return found


def _hash(context: Context, entrant: Entrant, decision: Decision, seed: int) -> str:
    is_ranked = decision.n_candidates > 1
    return answer_hash(
        library=entrant.fingerprint,
        plan=decision.plan.to_json(),
        read=entrant.library.format(decision.messages),
        seed=seed,
        max_tokens=context.task.max_tokens,
        n_candidates=decision.n_candidates,
        ranking=[dict(decision.ranking), dict(decision.learned_ranking)] if is_ranked else None,
    )


def _make(context: Context, entrant: Entrant, wanted: Sequence[Wanted]) -> dict[str, Made]:
    """Each different answer once."""
    different = list({one.answer: one for one in wanted}.values())
    if not different:
        return {}
    outputs = generate_all(
        entrant.library,
        [one.decision for one in different],
        sampling=context.sampling,
        seeds=[context.draw_seed(one.user.name, one.prompt, one.copy) for one in different],
    )
    tokens = [output.completion.tokens for output in outputs]
    below = context.base_log_probs([one.prompt for one in different], tokens)
    return {
        one.answer: Made(
            output.text,
            len(output.completion.tokens),
            output.lead,
            float(sum(output.completion.log_probs)) - reference
            if one.decision.n_candidates == 1
            else None,
        )
        for one, output, reference in zip(different, outputs, below, strict=True)
    }


def _unjudged(context: Context, entrant: Entrant, one: Wanted, made: Made) -> AnswerRow:
    decision, predicted = one.decision, one.decision.predicted_utility
    return AnswerRow(
        method=entrant.name,
        user=one.user.name,
        seed=context.task.seed,
        prompt=one.prompt,
        copy=one.copy,
        text=made.text,
        rewards={},
        utility=0.0,
        shape=one.user.shape,
        cluster=one.user.cluster,
        taken=decision.method,
        n_passes=decision.n_passes,
        n_candidates=decision.n_candidates,
        reason=decision.reason,
        lead=made.lead,
        predicted=None
        if predicted is None
        else (predicted.estimate, predicted.low, predicted.high),
        coefficients=dict(decision.coefficients),
        judge=context.task.judge,
        versions=versions_line(entrant),
        answer=one.answer,
        n_tokens=made.n_tokens,
        log_ratio=made.log_ratio,
    )


def versions_line(entrant: Entrant) -> str:
    """Packages and library, in one line."""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return f"{packages}, library {entrant.fingerprint}"
