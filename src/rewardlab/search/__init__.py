"""Search for good completions: step by step with a process reward model, and the best of n whole ones."""

from rewardlab.search.best_of_n import JudgedGroup, Selection
from rewardlab.search.best_of_n_curve import BestOfNSummary, summarise
from rewardlab.search.best_of_n_files import BestOfNOutputs, BestOfNRun, best_of_n_file
from rewardlab.search.steps import Proposal, SearchResult, Solution, beam_search, best_of_n_steps

__all__ = [
    "BestOfNOutputs",
    "BestOfNRun",
    "BestOfNSummary",
    "JudgedGroup",
    "Proposal",
    "SearchResult",
    "Selection",
    "Solution",
    "beam_search",
    "best_of_n_file",
    "best_of_n_steps",
    "summarise",
]
