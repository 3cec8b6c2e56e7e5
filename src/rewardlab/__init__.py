"""rewardlab: train, verify, evaluate and score with reward models whose score is the same everywhere."""

__version__ = "0.1.0"
