"""The stories, each told flat in one file; the only place where parts meet."""
