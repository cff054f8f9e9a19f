"""A network on a board: the host's side of the serial line."""
