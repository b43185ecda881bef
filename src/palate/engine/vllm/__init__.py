"""An engine over a running vLLM."""
