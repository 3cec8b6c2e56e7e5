"""Others' signatures around a Scorer: TRL, verl, OpenRLHF, trlX. Their libraries are imported here alone."""
