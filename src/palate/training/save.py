"""A trained adapter as a PEFT folder with its model card; its bytes depend on the adapter alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import Tensor

from palate.core.files import read_json, write_json, write_text_atomic
from palate.core.templates import render_template
from palate.core.types import BaseRecord
from palate.models.adapter import CONFIG, PARAMETERS
from palate.models.dtype import DTYPES
from palate.training.job import ExpertJob

CARD = "README.md"
_CARD_TEMPLATE = Path(__file__).with_name("card.md.jinja")


def fill_expert_folder(
    folder: Path,
    *,
    model: PeftModel,
    base_path: str,
    card: str,
    dtype: str = "float32",
    parameters: Mapping[str, Tensor] | None = None,
) -> None:
    """Write `adapter_config.json`, `adapter_model.safetensors` and the card into the folder.

    PEFT writes its sets in an order that differs between processes, so the configuration is written
    again with sorted keys and lists. Parameters, `[out, in]` by name, are given where the model
    itself has only shards of them.
    """
    if parameters is None:
        trained = model.named_parameters()
        parameters = {name: value.detach() for name, value in trained if value.requires_grad}
    stored = {name: value.to(DTYPES[dtype]) for name, value in parameters.items()}
    model.save_pretrained(
        str(folder), safe_serialization=True, save_embedding_layers=False, state_dict=stored
    )
    (folder / PARAMETERS).chmod(0o644)  # safetensors makes files that others cannot read
    config: dict[str, Any] = read_json(folder / CONFIG)
    config["base_model_name_or_path"] = base_path
    config["target_modules"] = sorted(config["target_modules"])
    write_json(folder / CONFIG, dict(sorted(config.items())))
    write_text_atomic(folder / CARD, card)


def render_card(
    job: ExpertJob, *, base: BaseRecord, tilt: tuple[float, float, int], versions: dict[str, str]
) -> str:
    """The card as Markdown with the Hub's front matter.

    The tilt is mean and standard deviation in reward units, and number of answers.
    """
    training, modules = job.training, job.adapter.target_modules
    size = training.per_device_train_batch_size * training.gradient_accumulation_steps
    wanted = zip(job.anchor.objectives, job.anchor.direction, strict=True)
    text = render_template(
        _CARD_TEMPLATE,
        {},
        base=base,
        job=job,
        training=training,
        adapter=job.adapter,
        modules=modules if isinstance(modules, str) else ", ".join(modules),
        wanted=[(name, share) for name, share in wanted if share != 0.0],
        size=size,
        tilt=tilt,
        versions=versions,
    )
    return text + "\n"
