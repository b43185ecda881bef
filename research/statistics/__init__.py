"""Studies of the numbers themselves: intervals, judges, rewards."""
