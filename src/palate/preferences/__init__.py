"""Users' coefficients from their feedback, each with its uncertainty.

Read `bradley_terry` first (one logistic fit for one user or many), then `belief` (a belief kept up
to date item by item), `population` (the prior of a new user), and `questions` (what to ask next).
"""
