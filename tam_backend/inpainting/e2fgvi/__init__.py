"""E2FGVI-HQ: our own inference network for the published weights."""
