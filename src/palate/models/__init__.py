"""Base models, adapter bank, engine: the only folder that speaks to transformers and peft."""
