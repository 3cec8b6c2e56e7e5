"""Metrics of scores: pure numpy in float64, no torch and no models."""

from rewardlab.metrics.accuracy import mean_margin, pairwise_accuracy, score_margins, tie_rate
from rewardlab.metrics.auc import roc_auc
from rewardlab.metrics.bootstrap import Interval, Statistic, bootstrap_by_cluster, bootstrap_weights, mean_of
from rewardlab.metrics.comparison import Comparison, SubsetComparison, compare
from rewardlab.metrics.correlation import kendall_tau, pearson, spearman
from rewardlab.metrics.first_errors import FirstErrorResult, first_error, predicted_first_error
from rewardlab.metrics.kappa import Agreement, agreement, cohen_kappa
from rewardlab.metrics.known import Evaluation, evaluate_known, require_known
from rewardlab.metrics.length import longer_is_chosen, shorter_is_chosen
from rewardlab.metrics.length_control import LengthControlled, LengthFit
from rewardlab.metrics.outcomes import BestOfResult, OutcomeResult, evaluate_outcomes
from rewardlab.metrics.pairs import EvaluationResult, PairResult, SubsetResult, evaluate_scores
from rewardlab.metrics.probability import (
    ECE_BINS,
    brier_score,
    calibration_gaps,
    expected_calibration_error,
    log_loss,
    outcome_calibration_error,
    pair_brier_scores,
    pair_log_losses,
)
from rewardlab.metrics.rankings import RankingResult, evaluate_rankings
from rewardlab.metrics.ratings import RatingResult, evaluate_ratings
from rewardlab.metrics.reliability import ReliabilityBin, outcome_reliability, reliability
from rewardlab.metrics.steps import StepResult, best_threshold, evaluate_steps
from rewardlab.metrics.system_ranking import RankedSystem, SystemComparison, SystemRanking, rank_systems
from rewardlab.metrics.ties import TieResult, tie_threshold
from rewardlab.metrics.win_rate import WinRate, win_rate

__all__ = [
    "ECE_BINS",
    "Agreement",
    "BestOfResult",
    "Comparison",
    "Evaluation",
    "EvaluationResult",
    "FirstErrorResult",
    "Interval",
    "LengthControlled",
    "LengthFit",
    "OutcomeResult",
    "PairResult",
    "RankedSystem",
    "RankingResult",
    "RatingResult",
    "ReliabilityBin",
    "Statistic",
    "StepResult",
    "SubsetComparison",
    "SubsetResult",
    "SystemComparison",
    "SystemRanking",
    "TieResult",
    "WinRate",
    "agreement",
    "best_threshold",
    "bootstrap_by_cluster",
    "bootstrap_weights",
    "brier_score",
    "calibration_gaps",
    "cohen_kappa",
    "compare",
    "evaluate_known",
    "evaluate_outcomes",
    "evaluate_rankings",
    "evaluate_ratings",
    "evaluate_scores",
    "evaluate_steps",
    "expected_calibration_error",
    "first_error",
    "kendall_tau",
    "log_loss",
    "longer_is_chosen",
    "mean_margin",
    "mean_of",
    "outcome_calibration_error",
    "outcome_reliability",
    "pair_brier_scores",
    "pair_log_losses",
    "pairwise_accuracy",
    "pearson",
    "predicted_first_error",
    "rank_systems",
    "reliability",
    "require_known",
    "roc_auc",
    "score_margins",
    "shorter_is_chosen",
    "spearman",
    "tie_rate",
    "tie_threshold",
    "win_rate",
]
