"""Metrics of scores: pure numpy in float64, no torch and no models."""

from rewardlab.metrics.accuracy import mean_margin, pairwise_accuracy, score_margins, tie_rate
from rewardlab.metrics.bootstrap import Interval, Statistic, bootstrap_by_cluster, mean_of
from rewardlab.metrics.length import longer_is_chosen, shorter_is_chosen
from rewardlab.metrics.pairs import EvaluationResult, PairResult, SubsetResult, evaluate_scores
from rewardlab.metrics.probability import (
    ECE_BINS,
    calibration_gaps,
    expected_calibration_error,
    log_loss,
    pair_log_losses,
)

__all__ = [
    "ECE_BINS",
    "EvaluationResult",
    "Interval",
    "PairResult",
    "Statistic",
    "SubsetResult",
    "bootstrap_by_cluster",
    "calibration_gaps",
    "evaluate_scores",
    "expected_calibration_error",
    "log_loss",
    "longer_is_chosen",
    "mean_margin",
    "mean_of",
    "pair_log_losses",
    "pairwise_accuracy",
    "score_margins",
    "shorter_is_chosen",
    "tie_rate",
]
