"""PALM: a small portfolio of policies with a certificate."""
