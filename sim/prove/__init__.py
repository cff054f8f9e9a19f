"""Proof that the Verilog equals the model, score by score and beat by beat."""
