"""Users x prompts x methods; `palate.evaluate(...)` is `evaluate_library` of `recipes.evaluate`."""

from palate.core.callable_module import make_callable

make_callable(__name__, calls="palate.recipes.evaluate:evaluate_library")
