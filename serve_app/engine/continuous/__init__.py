"""Continuous batching: texts that are generated join and leave the batch at every step."""
