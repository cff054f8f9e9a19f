"""Running and measuring: co-simulation, cycles, reports, the command line."""
