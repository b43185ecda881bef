"""MoPE: a controller that mixes experts token by token.

Read `mope.py` first: it is the paper's algorithm (scores, shares, mixture, reward, loss) with the
training loop. `controller.py` is the preference control model, `pooling.py` and `losses.py` hold
the formulas, `rollout.py` samples and judges, `decode.py` answers under a controller, and
`wording.py` says what experts and controller are prompted with.
"""
