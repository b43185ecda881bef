"""Studies of users, simulated and real: questions, coverage, drift, the store under faults."""
