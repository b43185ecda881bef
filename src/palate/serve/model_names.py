"""Names of models: `palate` lets the request choose a method, `palate/METHOD` fixes it."""

from collections.abc import Sequence

from palate.serve.errors import ApiError
from palate.serve.wire.palate import PalateIn

MODEL = "palate"
AUTO = "auto"


def model_names(methods: Sequence[str]) -> list[str]:
    """What can be given as `model`."""
    return [MODEL, *(f"{MODEL}/{method}" for method in methods if method != AUTO)]


def with_model(palate: PalateIn, model: str, *, methods: Sequence[str]) -> PalateIn:
    """The request with the method that the model's name fixes.

    Raises:
        ApiError: there is no such model, or it and `method` disagree.
    """
    if model not in model_names(methods):
        message = f"The model {model[:80]!r} does not exist; see /v1/models."
        raise ApiError(404, message, code="model_not_found", param="model")
    _, _, method = model.partition("/")
    if not method:
        return palate
    if palate.method not in (AUTO, method):
        message = (
            f"The model {model!r} and the method {palate.method[:80]!r} disagree; give one of them."
        )
        raise ApiError(400, message, code="invalid_value", param="palate.method")
    return palate.model_copy(update={"method": method})
