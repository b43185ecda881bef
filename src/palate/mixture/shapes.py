"""Names of the arrays that losses, pooling and policy pass on."""

from jaxtyping import Bool, Float
from torch import Tensor

PerToken = Float[Tensor, "answers tokens"]  # padded on the right
IsToken = Bool[Tensor, "answers tokens"]  # false for padding
ByExpert = Float[Tensor, "... experts"]
