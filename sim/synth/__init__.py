"""What Yosys and nextpnr make of the Verilog: cells and clocks."""
