"""The demo from top to bottom: answer, judge, certify, learn, explain, train, report.

What is trained is one further expert in closed form, for a rule that the visitor gives.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from time import monotonic
from typing import TypeVar

import numpy as np

from palate.core.decision import AUTO, Known
from palate.core.errors import InvalidInputError, PalateError
from palate.core.files import write_json, write_text_atomic
from palate.core.plan import member_plan
from palate.core.progress import note, progress_of
from palate.core.protocols import Request
from palate.demo.answers import (
    BASE,
    PROMPT,
    Judge,
    Place,
    Writer,
    answer_users,
    gains_story,
    learned_story,
    mean_interval,
)
from palate.demo.report import (
    DemoReport,
    DemoUser,
    PortfolioStory,
    RuleStory,
    TokenStory,
    UserAnswer,
    demo_users,
    render_page,
)
from palate.engine.bank import AdapterBank
from palate.engine.detokenize import token_texts
from palate.engine.local import LocalEngine
from palate.engine.logprobs import Scored
from palate.library.explain import explain_answer, soup_authors
from palate.library.generate import Output
from palate.library.library import Library
from palate.library.portfolio import PORTFOLIO
from palate.library.rewards import held_back_rewards
from palate.mixture.explain import Explanation
from palate.mixture.explain import TokenStory as Token
from palate.models.adapter import Factor, save_adapter
from palate.models.chat import encode_prompt
from palate.rewards.rules import RuleReward
from palate.training.placement import HEAD, AdapterSettings, target_modules
from palate.training.rollouts import Rollout, read_rollouts
from palate.training.spectral import SpectralExpert
from palate.training.train import rollout_data

N_JUDGED, N_COMPARED = 6, 8  # of the demo's own prompts: the first judge, the next are compared
_LEARNED = 2  # place of the user who is learned
Part = TypeVar("Part")


@dataclass(frozen=True)
class DemoSettings:
    """What a visitor may choose."""

    out: Path  # folder of the report and the new expert
    prompt: str = "Why is the sky blue?"
    seed: int = 0
    rule: RuleReward | None = None  # of the further expert; `None` trains nothing


def run_demo(library: Library, settings: DemoSettings) -> DemoReport:
    """Show what the library does, and write `report.html` and `report.json`.

    Raises:
        InvalidInputError: the library has no objectives, or the prompt is empty or too long.
    """
    started, manifest, seed = monotonic(), library.manifest, settings.seed
    if not manifest.objectives or not settings.prompt.strip():
        raise InvalidInputError(
            "The demo needs a prompt and a library with objectives; give both, such as "
            "'palate demo library --prompt \"Why is the sky blue?\"'."
        )
    users, prompts = demo_users(manifest.objective_names), demo_prompts()
    judged, compared = prompts[:N_JUDGED], prompts[N_JUDGED : N_JUDGED + N_COMPARED]
    writer, left_out = Writer(library, seed=seed), list[str]()

    def part(name: str, make: Callable[[], Part]) -> Part | None:
        try:
            return make()
        except PalateError as error:
            left_out.append(f"{name}: {error}")
            return None

    outputs = answer_users(writer, users, [settings.prompt, *judged])
    held_out = {place: output for place, output in outputs.items() if place[2] in judged}
    bases = {prompt: outputs[BASE, "", prompt] for prompt in (settings.prompt, *judged)}
    judge = part("Gains and learning", lambda: Judge(*held_back_rewards(library.files)))
    gains = learned = rule = None
    if judge is not None:
        gains = part("Gains", lambda: gains_story(library, judge, users, held_out, seed=seed))
        user = users[min(_LEARNED, len(users) - 1)]
        learned = part(
            "Learning", lambda: learned_story(writer, judge, user, compared=compared, bases=bases)
        )
    if settings.rule is None:
        left_out.append("A further expert: --no-train leaves it out.")
    else:
        own, folder = settings.rule, settings.out / "expert"
        rule = part(
            "A further expert", lambda: rule_story(writer, own, prompts=prompts, folder=folder)
        )
    mixed = max(users, key=lambda user: len(user.preference))
    report = DemoReport(
        library=library.files.folder.name,
        base=manifest.base.path,
        n_parameters=library.base.model.num_parameters(),
        experts=library.bank.names,
        prompt=settings.prompt,
        seed=seed,
        base_text=bases[settings.prompt].text,
        users=tuple(_answer(user, outputs, settings.prompt) for user in users),
        gains=gains,
        portfolio=part("Portfolio", lambda: _portfolio(library)),
        learned=learned,
        tokens=part("Tokens", lambda: token_story(writer, mixed, settings.prompt)),
        rule=rule,
        left_out=tuple(left_out),
        seconds=monotonic() - started,
    )
    settings.out.mkdir(parents=True, exist_ok=True)
    write_text_atomic(settings.out / "report.html", render_page(report))
    write_json(settings.out / "report.json", asdict(report))
    return report


def demo_prompts() -> tuple[str, ...]:
    """The demo's own general questions, on which nothing was trained."""
    return tuple(files("palate.demo").joinpath("prompts.txt").read_text().split("\n")[:-1])


def _answer(user: DemoUser, outputs: Mapping[Place, Output], prompt: str) -> UserAnswer:
    output, prompted = outputs[AUTO, user.name, prompt], outputs.get((PROMPT, user.name, prompt))
    words = None if prompted is None else prompted.text
    return UserAnswer(user, output.text, output.method, output.reason, words)


def _portfolio(library: Library) -> PortfolioStory:
    """The members and their certificate."""
    portfolio = library.portfolio
    if portfolio is None:
        raise InvalidInputError(
            f"The library has no {PORTFOLIO}; make one with 'palate portfolio select'."
        )
    record = portfolio.record
    certificate, n = record.certified.certificate, record.payoffs.n_policies
    loss = certificate.additive_gap
    sentence = (
        f"Nobody, whatever they prefer, loses more than {loss:.3f} in reward by having only these "
        f"{len(record.members)} of n = {n} policies (confidence {certificate.confidence:.0%})."
        if loss is not None
        else f"All {n} policies are members, and nothing bounds the loss to a policy beyond them."
    )
    return PortfolioStory(record.members, loss, sentence)


def token_story(writer: Writer, user: DemoUser, prompt: str) -> TokenStory:
    """One answer to the user, token by token.

    Raises:
        InvalidInputError: the library has no experts.
    """
    library = writer.library
    if library.controller is not None:
        explanation = explain_answer(
            library, prompt, user.preference, sampling=writer.sampling, seed=writer.seed
        )
        return TokenStory(user, "mixture", explanation)
    decision = library.decide(prompt, Known(preference=user.preference), method="soup")
    (output,) = writer.write([decision], name="answer by tokens")
    return TokenStory(user, "soup", _soup_explanation(library, prompt, output))


def _soup_explanation(library: Library, prompt: str, output: Output) -> Explanation:
    """The base's and every expert's part of each token's probability."""
    base, tokens = library.base, output.completion.tokens
    context = encode_prompt(base, library.format(output.decision.messages))
    item = Scored(tuple(context), tokens)
    authors, parts = soup_authors(base, library.bank, plan=output.decision.plan, item=item)
    texts, log_probs = token_texts(base, tokens), output.completion.log_probs
    rows = zip(tokens, texts, log_probs, parts.tolist(), strict=True)
    return Explanation(
        prompt,
        tuple(authors),
        tuple(
            Token(text, log_prob, tuple(wrote), tuple(wrote))
            for token, text, log_prob, wrote in rows
            if token not in base.stop_ids
        ),
    )


N_ROLLOUTS = 200  # a minute of hidden states on two cores
RANK = 8


def rule_story(
    writer: Writer, reward: RuleReward, *, prompts: Sequence[str], folder: Path
) -> RuleStory:
    """The expert, written to `folder`, and its rewards on prompts that it was not solved from.

    Raises:
        InvalidInputError: all rollouts are worth the same to it.
        FormatError: the library has no rollouts.
    """
    library, started = writer.library, monotonic()
    rows = _rollouts(library, without=prompts)
    expert = _solved(library, rows, reward, seed=writer.seed)
    (head,) = target_modules(library.base.model, AdapterSettings(target_modules=HEAD))
    save_adapter({head: expert.factor}, folder, base_path=library.base.path)
    seconds = monotonic() - started
    bases = writer.write(
        [library.decide(prompt, method=BASE) for prompt in prompts], name="answers of the base"
    )
    texts = ([one.text for one in bases], _answers(writer, {head: expert.factor}, prompts))
    before, after = (reward.score(prompts, one) for one in texts)
    intervals = {
        name: mean_interval(values, prompts, seed=writer.seed, name=f"rule {name}")
        for name, values in (("before", before), ("after", after), ("gain", after - before))
    }
    shown = int(np.argmax(after - before))
    return RuleStory(
        **intervals,
        rule=reward.rule.model_dump(),
        n_rollouts=len(rows),
        correlation=expert.correlation,
        seconds=seconds,
        prompt=prompts[shown],
        text_before=texts[0][shown],
        text_after=texts[1][shown],
        folder=str(folder),
    )


def _rollouts(library: Library, *, without: Sequence[str]) -> list[Rollout]:
    """All answers to the first prompts of the library, but for these, up to `N_ROLLOUTS`."""
    files = library.files
    rows = read_rollouts(files.rollouts_path, objectives=files.manifest.objective_names)
    by_prompt: dict[str, list[Rollout]] = {}
    for row in rows:
        if row.prompt not in without:
            by_prompt.setdefault(row.prompt, []).append(row)
    chosen: list[Rollout] = []
    for group in by_prompt.values():
        chosen += group if len(chosen) + len(group) <= N_ROLLOUTS else ()
    return chosen


def _solved(
    library: Library, rows: Sequence[Rollout], reward: RuleReward, *, seed: int
) -> SpectralExpert:
    values = reward.score([row.prompt for row in rows], [row.completion for row in rows])
    if np.ptp(values) == 0.0:
        raise InvalidInputError(
            f"All {len(rows)} answers are worth {values[0]:g} by the rule, so nothing can be "
            "learned from them; give a rule that some answers follow."
        )
    judged = [replace(row, rewards=(value,)) for row, value in zip(rows, values, strict=True)]
    solver = rollout_data(library.base, judged, method="spectral", seed=seed).solver
    assert solver is not None  # noqa: S101  the method spectral has one
    note("solve for the expert, some seconds")
    return solver.solve(values, beta=library.manifest.beta, rank=RANK)


def _answers(writer: Writer, adapter: Mapping[str, Factor], prompts: Sequence[str]) -> list[str]:
    """The expert's answers, sampled as the base's were."""
    library = writer.library
    bank = AdapterBank(library.base, {"rule": adapter})
    plan = member_plan(index=0, n_experts=1)
    requests = [
        Request(library.format(prompt), plan, writer.sampling, writer.seed_of(prompt))
        for prompt in prompts
    ]
    try:
        with progress_of("answers of the new expert") as report:
            outputs = LocalEngine(library.base, bank).generate(requests)
            report(len(outputs), len(prompts))
    finally:
        bank.close()
    return [output.text for output in outputs]
