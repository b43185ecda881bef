"""Users x prompts x methods; `palate.evaluate(...)` is `evaluation.evaluate_library`."""

from palate.core.callable_module import make_callable

make_callable(__name__, calls="palate.evaluate.evaluation:evaluate_library")
