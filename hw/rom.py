"""ROM: weights and thresholds, loaded from a .mem file; a single word is a constant."""

from myhdl import always, block

from cbnn.hw.stream import Rom


@block
def rom(clk, advance, address, data, content: Rom):
    """Read a ROM synchronously: `data` is the word at `address` one cycle later, held while `advance` is low.

    A ROM of one word has no register: `data` is that word at all times.
    """
    words = content.words if len(content.words) > 1 else content.words * 2

    @always(clk.posedge)
    def read():
        if advance:
            data.next = words[address]

    clk.read = advance.read = address.read = True
    memory = f"{content.name}_words"
    if len(content.words) == 1:
        data.driven = "wire"
        rom.verilog_code = f"assign $data = {content.width}'h{content.words[0]:x};"
    else:
        data.driven = "reg"
        rom.verilog_code = (
            f"reg [{content.width - 1}:0] {memory} [0:{len(content.words) - 1}];\n"
            f'initial $$readmemh("{content.name}.mem", {memory});\n'
            f"always @(posedge $clk) begin: {content.name}_read\n"
            f"    if ($advance) $data <= {memory}[$address];\n"
            f"end")
    return read
