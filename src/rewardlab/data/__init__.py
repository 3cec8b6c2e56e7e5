"""Data: files -> groups -> ids, with every row accounted for."""
