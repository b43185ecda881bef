"""Studies of mixtures: what a trained controller is worth."""
