"""PALM: a small portfolio of policies with a certificate.

Read `palm.py` first: it is the paper's algorithm (a grid of preferences, one policy for each, the
smallest cover). `adaptive.py` makes fewer policies: it asks for the next one where the proven loss
is largest. `choice.py` selects members from any table of policies, `certificate.py` bounds what
users lose with them (by the exact largest loss of `gap.py`), and `route.py` serves a preference.
"""
