"""What a network costs before anything is generated: cycles, foldings, FIFOs."""
