"""Studies of portfolios: what few policies for everybody lose."""
