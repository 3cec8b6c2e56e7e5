"""The dialects, one file each: another server's JSON to items and scores, and back. No model, no queue."""
