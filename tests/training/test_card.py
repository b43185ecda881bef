"""The model card says what the expert is for and how it was made."""

import yaml

from palate.core.types import BaseRecord
from palate.training.anchors import Anchor
from palate.training.job import ExpertJob, TrainSettings
from palate.training.placement import AdapterSettings
from palate.training.save import render_card


def test_the_card_has_front_matter_and_the_facts():
    anchor = Anchor("mild", ("kind", "loud", "short"), (0.75, -0.25, 0.0))
    job = ExpertJob(anchor, AdapterSettings(r=4), TrainSettings(max_steps=12), seed=9)
    base = BaseRecord("org/base", "abc", "f" * 64, "t" * 64)
    text = render_card(job, base=base, tilt=(-0.125, 0.5, 64), versions={"trl": "1.16.0"})
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["base_model"] == "org/base"
    assert yaml.safe_load(front)["library_name"] == "peft"
    assert "more kind (0.75), less loud (0.25)" in body
    assert "at revision `abc`" in body
    assert "12 steps" in body
    assert "-0.1250 reward units (sd 0.5000, 64 answers)" in body
    assert "trl 1.16.0" in body
