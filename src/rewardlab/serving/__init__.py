"""One HTTP server that RL frameworks and reranking clients already speak to, and the client for it."""
