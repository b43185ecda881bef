"""One policy for everybody: an adapter that reads the preference in the prompt.

The rival of a mixture that needs no mixing: the base is asked with a user's three preference
sentences, answers twice, and one adapter is trained by REBEL on all users' pairs at once. Its
budget is that of all experts together: as many sampled answers, and as many optimizer steps as six
experts take.

Source:
    The multi-objective baseline of MoPE (arXiv 2407.04181) and Personalized Soups (arXiv
    2310.11564): one policy, rewarded by the mean of the wanted rewards, conditioned in words.

Deviations from the papers:
    1. REBEL from samples of the base instead of PPO, as for our experts.
    2. The reward is the mean of three, and the KL price is the experts'. At a third of it, so that
       each reward counts as it does for its own expert, 53 % of the answers were broken.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from palate.build.run_file import stored_run
from palate.core.decision import Decision, Known, Messages, with_instruction
from palate.core.files import hash_files, write_folder_atomic
from palate.core.plan import member_plan, reference_plan
from palate.core.progress import progress_of
from palate.core.protocols import Request, SamplingParams
from palate.core.seeds import derive_seed, generator_for
from palate.core.types import Objective
from palate.engine.bank import AdapterBank
from palate.library.controller import strengths_for, wording_of
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.library.manifest import ExpertRecord
from palate.library.rewards import library_rewards
from palate.mixture.wording import MixtureRequest, Wording
from palate.models.adapter import load_adapter
from palate.models.chat import encode_prompt
from palate.training.anchors import Anchor
from palate.training.job import ExpertJob, TrainingData
from palate.training.pairs import Sequences
from palate.training.rollouts import Rollout, read_rollouts
from palate.training.save import PARAMETERS, fill_expert_folder
from palate.training.train import deterministic, sequence_log_probs, train_expert
from research.world.prompts import MAX_ANSWER_TOKENS

NAME = "morl"  # of folders and seeds
CONDITIONED = "conditioned"  # as the board names it
WIDER = 2  # times the rank of an expert, at the same scale
_WANTED = Objective("wanted", "What the user of the prompt wants.")


def train_morl(
    opened: Library,
    wording: Wording,
    asked: Sequence[MixtureRequest],
    folder: Path,
    *,
    seed: int,
) -> None:
    """Train the adapter on two answers to each of these, and write it as a PEFT folder.

    Args:
        opened: Base and rewards; the experts are not used.
        wording: Says how a preference is put into words.
        asked: Training prompts with strengths over the experts, which stand for the objectives.
        folder: Written when training is done.
        seed: Random seed of answers and adapter.
    """
    stored = stored_run(opened.manifest.config)
    own, shape = stored.training, stored.adapter
    n_experts = len(opened.manifest.experts)
    training = own.model_copy(update={"max_steps": own.max_steps * n_experts})
    job = ExpertJob(
        Anchor(NAME, (_WANTED.name,), (1.0,)),
        shape.model_copy(update={"r": WIDER * shape.r, "lora_alpha": WIDER * shape.lora_alpha}),
        training,
        derive_seed(seed, NAME),
    )
    data = _data(opened, wording, asked, seed=seed)
    with progress_of(f"{NAME}, steps") as report:
        model = train_expert(opened.base, job, data, on_step=report)
    base_path = opened.manifest.base.path
    write_folder_atomic(
        folder,
        lambda target: fill_expert_folder(
            target, model=model, base_path=base_path, card=f"# {NAME}\n"
        ),
    )


@dataclass(frozen=True, eq=False)
class Conditioned:
    """One policy for everybody, trained with the preference in the prompt.

    Attributes:
        source: The library of experts, whose objectives' sentences the policy was trained with.
    """

    source: Library
    name: str = CONDITIONED

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The policy's row, prompted with the preference as in training."""
        manifest = self.source.manifest
        wording = wording_of(manifest, self.source.base, prompts="full")
        request = MixtureRequest(messages, strengths_for(manifest, dict(known.preference or {})))
        sentence = wording.preference(request)
        return Decision(
            with_instruction(messages, sentence),
            member_plan(index=0, n_experts=library.bank.n_experts),
            self.name,
            reason=f"One policy for everybody, prompted: {sentence!r}.",
        )


def conditioned_library(library: Library, folder: Path) -> Library:
    """The library of one policy trained with the preference in the prompt, nowhere on disk.

    Args:
        library: Whose base and objectives it has.
        folder: From `train_morl`.
    """
    objectives = library.manifest.objective_names
    even = (1.0 / len(objectives),) * len(objectives)
    key = hash_files([folder / PARAMETERS])
    record = ExpertRecord(Anchor(CONDITIONED, objectives, even), key=key, files={})
    manifest = replace(library.manifest, experts=(record,), controller=None)
    files = LibraryFolder(library.files.folder / "derived", manifest)
    bank = AdapterBank(library.base, {CONDITIONED: load_adapter(folder)})
    return Library(files, library.base, bank)


def fair_share(opened: Library, everything: Sequence[MixtureRequest]) -> list[MixtureRequest]:
    """So many of these, drawn at random, as make the answers that the experts were trained on.

    Args:
        opened: A library with its rollouts.
        everything: Every training prompt with every preference.
    """
    library = opened.files
    n_answers = len(
        read_rollouts(library.rollouts_path, objectives=library.manifest.objective_names)
    )
    chosen = generator_for(0, NAME).permutation(len(everything))[: n_answers // 2]
    return [everything[place] for place in sorted(chosen.tolist())]


def _data(
    opened: Library, wording: Wording, asked: Sequence[MixtureRequest], *, seed: int
) -> TrainingData:
    """Two answers of the base that is told the preference, to everything that is asked."""
    plan = reference_plan(n_experts=len(opened.manifest.experts))
    twice = [item for item in asked for _ in range(2)]
    requests = [
        Request(
            wording.full_text(item),
            plan,
            SamplingParams(max_tokens=MAX_ANSWER_TOKENS),
            seed=derive_seed(seed, NAME, place),
        )
        for place, item in enumerate(twice)
    ]
    answers = opened.engine.generate(requests)
    prompts = [item.text for item in twice]
    scores = library_rewards(opened.files).score(prompts, [a.text for a in answers])
    wanted = (scores * np.array([item.strengths for item in twice])).sum(axis=1)
    rollouts = [
        Rollout(
            prompt=f"{place // 2}",
            completion=answer.text,
            tokens=answer.tokens,
            log_prob=float(sum(answer.log_probs)),
            rewards=(float(reward),),
            finish=answer.finish,
        )
        for place, (answer, reward) in enumerate(zip(answers, wanted, strict=True))
    ]
    sequences = Sequences(
        tuple(tuple(encode_prompt(opened.base, request.prompt)) for request in requests),
        tuple(answer.tokens for answer in answers),
    )
    with deterministic(n_threads=1):
        reference = sequence_log_probs(opened.base.model, sequences)
    return TrainingData(rollouts=rollouts, sequences=sequences, reference=reference)
