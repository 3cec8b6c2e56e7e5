"""Search for solutions with a process reward model."""

from rewardlab.search.steps import Proposal, SearchResult, Solution, beam_search, best_of_n_steps

__all__ = ["Proposal", "SearchResult", "Solution", "beam_search", "best_of_n_steps"]
