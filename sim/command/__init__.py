"""The command `cbnn`: its verbs, their options, and what they print."""
