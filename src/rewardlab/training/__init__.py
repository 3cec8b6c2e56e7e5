"""Training: presets, arguments, batches, the trainer, a whole run."""
