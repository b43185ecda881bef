"""Studies of portfolios: how much users lose with few policies, and searches compared.

`tabular.py` holds the problems whose answer is known, `tradeoff.py` the methods that are compared
(`baselines.py`, `planned.py`, and the package's own searches), `recentre.py` and `tilting.py` what
may follow a selection; `study.py` and `world_study.py` write the reports.
"""
