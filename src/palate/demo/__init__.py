"""The first thing a visitor runs: one question for eight users, judged, certified and learned."""
