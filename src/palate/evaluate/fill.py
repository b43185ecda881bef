"""Answers of one entrant to all users and prompts, judged, as rows; none is generated twice."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

from palate.core.decision import Decision
from palate.evaluate.catalogue import BASE
from palate.evaluate.context import Context, Entrant
from palate.evaluate.judges import Candidate
from palate.evaluate.rows import AnswerRow, Results, answer_hash
from palate.evaluate.suite import UserSettings
from palate.library.generate import generate_all

BLOCK = 192  # answers that are made, judged and written at a time
_PACKAGES = ("palate", "torch")


@dataclass(frozen=True)
class Answer:
    """An answer that was generated; see `AnswerRow`."""

    text: str
    n_tokens: int
    lead: float
    log_ratio: float | None


@dataclass(frozen=True, eq=False)
class Missing:
    """An answer row that is missing; `answer` is the hash of everything that determines it."""

    user: UserSettings
    prompt: str
    copy: int
    decision: Decision
    answer: str


def fill_entrant(context: Context, name: str, prompts: Sequence[str], *, results: Results) -> None:
    """Append the missing rows of one entrant to these prompts.

    Texts that another entrant or user already has (the same plan, words and seed) are taken from
    there: what `auto` decides on is mostly another entrant's.

    Raises:
        InvalidInputError: the method is unknown, or the library lacks what it needs.
    """
    entrant = context.entrant(name)
    missing = _missing(context, entrant, prompts, results)
    known = {
        row.answer: Answer(row.text, row.n_tokens, row.lead, row.log_ratio)
        for row in results.answers
    }
    references = {
        (row.user, row.prompt, row.copy): row.text
        for row in results.answers
        if row.method == BASE and row.seed == context.task.seed
    }
    for start in range(0, len(missing), BLOCK):
        block = missing[start : start + BLOCK]
        known |= _make(context, entrant, [one for one in block if one.answer not in known])
        texts = [known[one.answer].text for one in block]
        judged = context.judge.judge(
            [
                Candidate(
                    one.prompt, text, references.get((one.user.name, one.prompt, one.copy), text)
                )
                for one, text in zip(block, texts, strict=True)
            ]
        )
        results.append(
            replace(
                _unjudged(context, entrant, one, known[one.answer]),
                rewards=dict(zip(context.objectives, rewards.tolist(), strict=True)),
                utility=float(context.shares(one.user) @ rewards),
                is_well_formed=judged.is_well_formed and judged.is_well_formed[place],
            )
            for place, (one, rewards) in enumerate(zip(block, judged.rewards, strict=True))
        )


def _missing(
    context: Context, entrant: Entrant, prompts: Sequence[str], results: Results
) -> list[Missing]:
    seed = context.task.seed
    missing: list[Missing] = []
    for user in context.task.users:
        for prompt in prompts:
            copies = [
                copy
                for copy in range(context.task.n_per_prompt)
                if ("answer", entrant.name, user.name, seed, prompt, copy) not in results
            ]
            if not copies:
                continue
            decision = entrant.decide(user, prompt)
            for copy in copies:
                answer_seed = context.answer_seed(user.name, prompt, copy)
                answer = _hash(context, entrant, decision, answer_seed)
                missing.append(Missing(user, prompt, copy, decision, answer))
    return missing


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


def _make(context: Context, entrant: Entrant, missing: Sequence[Missing]) -> dict[str, Answer]:
    """Each different answer once."""
    different = list({one.answer: one for one in missing}.values())
    if not different:
        return {}
    outputs = generate_all(
        entrant.library,
        [one.decision for one in different],
        sampling=context.sampling,
        seeds=[context.answer_seed(one.user.name, one.prompt, one.copy) for one in different],
    )
    tokens = [output.completion.tokens for output in outputs]
    below = context.base_log_probs([one.prompt for one in different], tokens)
    answers: dict[str, Answer] = {}
    for one, output, reference in zip(different, outputs, below, strict=True):
        n_tokens, is_one = len(output.completion.tokens), one.decision.n_candidates == 1
        log_ratio = float(sum(output.completion.log_probs)) - reference if is_one else None
        answers[one.answer] = Answer(output.text, n_tokens, output.lead, log_ratio)
    return answers


def _unjudged(context: Context, entrant: Entrant, one: Missing, answer: Answer) -> AnswerRow:
    decision, predicted = one.decision, one.decision.predicted_utility
    utility = None if predicted is None else (predicted.estimate, predicted.low, predicted.high)
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return AnswerRow(
        method=entrant.name,
        user=one.user.name,
        seed=context.task.seed,
        prompt=one.prompt,
        copy=one.copy,
        text=answer.text,
        rewards={},
        utility=0.0,
        shape=one.user.shape,
        cluster=one.user.cluster,
        taken=decision.method,
        n_passes=decision.n_passes,
        n_candidates=decision.n_candidates,
        reason=decision.reason,
        lead=answer.lead,
        predicted=utility,
        coefficients=dict(decision.coefficients),
        judge=context.task.judge,
        versions=f"{packages}, library {entrant.fingerprint}",
        answer=one.answer,
        n_tokens=answer.n_tokens,
        log_ratio=answer.log_ratio,
    )
