"""Studies on worlds whose truth is known: the demo, and later the over-optimisation lab."""
