"""What stands around the accelerator on a board: a serial link to a host, clock and reset, pins."""
