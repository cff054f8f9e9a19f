"""The accelerator in MyHDL, and its Verilog."""
