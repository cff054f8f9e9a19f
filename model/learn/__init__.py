"""Training, what each slice carries, and the compaction of a network."""
