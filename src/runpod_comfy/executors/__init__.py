"""Where a workflow can run: one face, several places."""
