"""What a network gives for images: the golden model, plain and compiled, and evaluation with it."""
