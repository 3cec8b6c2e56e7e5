"""An LLM as judge, over any OpenAI-compatible endpoint, and how far it can be believed."""
