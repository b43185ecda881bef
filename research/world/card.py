"""The model card of a base of the small world."""

from research.world.measurement import Measurement
from research.world.pretrain import PretrainSettings

_HEAD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---
# The base of palate's small world

A Llama that explains {n_topics} topics in one to five sentences, with simple or technical words, in
a friendly, neutral or unfriendly tone. It is made for experiments with personalised answers on a
CPU: everything it can say comes from a small grammar, and none of it is advice.

It reads plain text and ends its answer with `<|end|>`:

```
Question: What is a desert fox?
Answer:
```

A line `Wish: Keep it short.` before the question asks for a manner. The tokenizer's chat template
writes the same text (the wish is the system message). The tokenizer adds no token of its own.
"""


def model_card(
    settings: PretrainSettings, *, n_topics: int, seconds: float, loss: float, found: Measurement
) -> str:
    """The README of a base: what it is, how it was made, what was measured."""
    given = "\n".join(f"| {key} | {value} |" for key, value in settings.model_dump().items())
    columns = (found.gold_mean, found.gold_sd, found.gold_mean_if_asked)
    rewards = "\n".join(
        f"| {name} | " + " | ".join(f"{column[name]:.3f}" for column in columns) + " |"
        for name in found.gold_mean
    )
    plain, wished = found.well_formed, found.well_formed_with_wishes
    excess = ", ".join(
        f"{nats:.3f} (standard error {found.excess_errors[name]:.3f}) {about}"
        for (name, nats), about in zip(
            found.excess_nats.items(), ("on training topics", "on held-out topics"), strict=True
        )
    )
    quantiles = ", ".join(f"{value:.0f}" for value in found.tokens)
    return f"""{_HEAD.format(n_topics=n_topics)}
## Recipe

Made from nothing by `python -m research.world.train --out DIR` with these settings, in
{seconds:.0f} seconds, on documents drawn from the grammar; prompts about held-out topics were never
shown. The loss counts answers only and ended at {loss:.3f} nats a token (mean of the last hundred
steps).

| setting | value |
|---|---|
{given}

## Measured

Sampled at temperature 1 on held-out prompts; again by `python -m research.world.measure DIR`.

- well-formed: {plain.share:.3f} [{plain.low:.3f}, {plain.high:.3f}] of {plain.n_answers} answers
- well-formed with preference sentences: {wished.share:.3f} [{wished.low:.3f}, {wished.high:.3f}]
  of {wished.n_answers} answers
- nats per answer above the grammar's own entropy: {excess}
- tokens per answer at 0, 5, 50, 95, 100 %: {quantiles}

| objective | gold mean | sd | mean if asked for |
|---|---|---|---|
{rewards}
"""
