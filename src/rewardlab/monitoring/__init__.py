"""Whether a reward model still is what it was: canaries, fresh windows, live drift, and what to label next."""
