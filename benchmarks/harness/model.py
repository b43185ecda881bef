# ruff: noqa: FBT001, FBT002  (the signatures are the harness's)
"""The class that the lm-evaluation-harness takes, and a run of its tasks; needs palate[harness]."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate  # pyright: ignore[reportMissingImports]
from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]
from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

from benchmarks.harness.library import HarnessModel
from palate.core.errors import InvalidInputError
from palate.models.chat import format_messages


class LibraryLM(LM):  # pyright: ignore[reportUntypedBaseClass]
    """A library under one plan, as the harness sees it."""

    def __init__(self, model: HarnessModel) -> None:
        """Keep what answers."""
        super().__init__()
        self.model = model

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether it is the greedy one."""
        del disable_tqdm
        return [self.model.log_likelihood(*request.args) for request in requests]

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-probability of each text."""
        del disable_tqdm
        return [self.model.rolling(request.args[0]) for request in requests]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Each context's continuation up to a stop."""
        del disable_tqdm
        return self.model.generate([request.args for request in requests])

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Messages as the base reads them; the answer begins at the end."""
        if not add_generation_prompt:
            raise InvalidInputError(
                "An answer that the task begins is not continued; use a task without a prefix."
            )
        return format_messages(self.model.opened.base, chat_history)

    @property
    def tokenizer_name(self) -> str:
        """Of the base, for the harness's caches."""
        return self.model.opened.base.tokenizer_fingerprint

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The base's own template; others are not taken."""
        if isinstance(chat_template, str) and chat_template:
            raise InvalidInputError(
                f"The base has one chat template, not {chat_template!r}; ask for its own."
            )
        return str(getattr(self.model.opened.base.tokenizer, "chat_template", None) or "")


@dataclass(frozen=True)
class HarnessJob:
    """Which tasks are run."""

    tasks: tuple[str, ...]  # names that the harness knows
    include: Path | None = None  # folder with tasks of your own, as YAML
    limit: int | None = None  # examples of each task; `None` is all
    n_examples: int | None = None  # shown before each question; `None` is what the task says
    with_chat_template: bool = False  # ask as a user asks in a chat


def run_harness(model: HarnessModel, job: HarnessJob) -> dict[str, Any]:
    """The harness's results for its tasks: by task its metrics with their standard errors.

    Raises:
        InvalidInputError: a task is not known.
    """
    manager = TaskManager(include_path=None if job.include is None else str(job.include))
    unknown = [name for name in job.tasks if name not in manager.all_tasks]
    if unknown or not job.tasks:
        raise InvalidInputError(
            f"The harness knows no task {(unknown or [''])[0]!r}; its own and those of the include "
            "folder can be named."
        )
    results: Any = simple_evaluate(
        model=LibraryLM(model),
        tasks=list(job.tasks),
        task_manager=manager,
        limit=job.limit,
        num_fewshot=job.n_examples,
        apply_chat_template=job.with_chat_template,
        log_samples=False,
    )
    return {"results": results["results"], "n_samples": results["n-samples"]}
