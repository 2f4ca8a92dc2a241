"""Tools for before and after a run, and the live view; needs the extra `[lab]`."""
