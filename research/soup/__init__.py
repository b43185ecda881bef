"""Studies of soups: how close coefficients come to a policy trained for the user."""
