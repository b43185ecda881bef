"""One further expert in closed form, for a rule that the visitor gives."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic

import numpy as np

from palate.core.errors import InvalidInputError
from palate.core.plan import member_plan
from palate.core.progress import note, progress_of
from palate.core.protocols import Request
from palate.demo.answers import BASE, Writer, mean_interval
from palate.demo.report import RuleStory
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.library.library import Library
from palate.models.adapter import Factor, save_adapter
from palate.rewards.rules import RuleReward
from palate.training.placement import HEAD, AdapterSettings, target_modules
from palate.training.rollouts import Rollout, read_rollouts
from palate.training.spectral import SpectralExpert
from palate.training.train import rollout_data

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
