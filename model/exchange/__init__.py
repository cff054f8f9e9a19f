"""Networks on disk, and in the formats of others."""
