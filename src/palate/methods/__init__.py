"""Methods: from what is known of a user to a decision; one file each, and one table."""
