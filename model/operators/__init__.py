"""Operators: what each gives for a tensor, which parameters it takes, and what it computes."""
