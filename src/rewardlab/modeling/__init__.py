"""Models: head, padding, loading, contract, verification, saving."""
