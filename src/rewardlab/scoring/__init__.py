"""Scoring: text -> score with a trained model, one call at a time or a file at a time."""
