"""Evaluation of a scorer on preference pairs, and on whatever else is known of completions."""

from rewardlab.evaluation.evaluator import Evaluator, GroupScorer, StepScorer

__all__ = ["Evaluator", "GroupScorer", "StepScorer"]
