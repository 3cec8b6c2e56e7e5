"""Evaluation of a scorer on preference pairs."""

from rewardlab.evaluation.evaluator import Evaluator, GroupScorer

__all__ = ["Evaluator", "GroupScorer"]
