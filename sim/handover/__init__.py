"""The folder for a colleague: Verilog, a test bench, packers for a host, a page that says it all."""
