"""The sliding window unit (SWU) and its parts."""
