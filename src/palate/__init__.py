"""`palate`: answers in each person's taste from a small library of experts on one base model."""
