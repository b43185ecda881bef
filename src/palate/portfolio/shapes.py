"""Names of the arrays that most modules here pass on; values are in reward units."""

from jaxtyping import Float
from numpy import ndarray

ByObjective = Float[ndarray, " objectives"]  # a preference on the simplex, or one policy's values
ByMember = Float[ndarray, " members"]
MemberValues = Float[ndarray, "members objectives"]  # higher is better
RowValues = Float[ndarray, "rows objectives"]  # what users could have instead, or a ceiling
PolicyValues = Float[ndarray, "policies objectives"]
Corners = Float[ndarray, "corners objectives"]  # preferences, on the simplex
Visited = Float[ndarray, "visited objectives"]  # preferences with a known bound on all policies
Heights = Float[ndarray, " visited"]  # these bounds
Users = Float[ndarray, "users objectives"]  # preferences, on the simplex
UserLosses = Float[ndarray, "users policies"]  # of each user with each policy alone
