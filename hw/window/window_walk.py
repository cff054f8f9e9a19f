"""Walk through the windows of an image: addresses in the line buffer, and which pixels are padding."""

from myhdl import Signal, always, always_comb, always_seq, block, instances, intbv, modbv

from cbnn.hw.loops import loop_signals, nested_loops


class Walk:
    """Loops that walk through the windows of an image, the innermost first, and the address that is read.

    They are channel word, kernel column, kernel row, slice, image column and image row.
    """

    def __init__(self, unit):
        layer, (row_step, column_step) = unit.layer, unit.tap_steps
        n_rows, n_columns = unit.n_windows
        self.ranges = (
            range(unit.words_per_tap),
            range(0, layer.kernel, column_step),
            range(0, layer.kernel, row_step),
            range(unit.n_slices), range(n_columns), range(n_rows))
        self.indices, self.ends = loop_signals(*self.ranges)
        # The first tap may lie above the image, and before the ring's first word.
        start = -layer.padding * unit.row_words + unit.span_words[0] * unit.pixel_words
        self.address = Signal(modbv(start % unit.depth)[unit.depth.bit_length() - 1 :])


@block
def walk_windows(clk, rst, read, walk, unit):
    """Walk the loops, and the address with them.

    Taps of 3 x 3, of a word each, in rows of 8 words: the address moves by 1 within a row of taps,
    and by 8 - 2 = 6 from the end of one to the next.
    """
    word, kernel_column, kernel_row, slice_, column, row = walk.indices
    word_end, tap_row_end, slice_end, window_end, row_end, image_end = walk.ends
    walking = nested_loops(clk, rst, read, (word, kernel_column, kernel_row, slice_, column, row),
                           walk.ends, walk.ranges)
    address = walk.address
    next_word, next_column, next_row, next_slice, next_window, next_line, next_image = _moves(walk, unit)
    move = Signal(intbv(0)[len(address) :])

    @always_comb
    def choose_move():
        # An end includes those of the loops inside it, so the outermost one that ends decides.
        if image_end:
            move.next = next_image
        elif row_end:
            move.next = next_line
        elif window_end:
            move.next = next_window
        elif slice_end:
            move.next = next_slice
        elif tap_row_end:
            move.next = next_row
        elif word_end:
            move.next = next_column
        else:
            move.next = next_word

    @always_seq(clk.posedge, reset=rst)
    def step_address():
        # Moves are modulo the ring, so that a step back is a step forward.
        if read:
            address.next = address + move

    return instances()


@block
def select_padding(clk, advance, walk, taps, m_tdata, unit):
    """Join the pixels read into a beat, with `pad_bit` in place of those outside the image.

    For example, the first window of 3 x 3 with padding of 1: the masks of its rows and of its columns
    are 110, of which bit 0 is the first row's or column's, so four of its nine pixels are of the image.
    """
    layer, ports, width = unit.layer, unit.ports, unit.word

    if layer.padding == 0:
        @always_comb
        def join():
            for port in range(ports):
                for i in range(width):
                    m_tdata.next[port * width + i] = taps[port][i]
        return join

    _, kernel_column, kernel_row, _, column, row = walk.indices
    pad_bit = bool(layer.pad_bit)
    row_masks = inside_masks(unit.n_windows[0], unit.in_shape[0], layer.stride, layer.kernel, layer.padding)
    column_masks = inside_masks(unit.n_windows[1], unit.in_shape[1], layer.stride, layer.kernel, layer.padding)
    kernel, row_step = layer.kernel, min(ports, layer.kernel)
    rows_inside = Signal(intbv(0)[kernel:])
    columns_inside = Signal(intbv(0)[kernel:])
    inside = Signal(intbv(0)[ports:])

    @always_comb
    def look_up_rows():
        rows_inside.next = row_masks[row]

    @always_comb
    def look_up_columns():
        columns_inside.next = column_masks[column]

    @always(clk.posedge)
    def find_inside():
        # A cycle late, as the words that are read.
        if advance:
            for port in range(ports):
                inside.next[port] = (rows_inside[kernel_row + port // row_step]
                                     and columns_inside[kernel_column + port % row_step])

    @always_comb
    def select():
        for port in range(ports):
            for i in range(width):
                if inside[port]:
                    m_tdata.next[port * width + i] = taps[port][i]
                else:
                    m_tdata.next[port * width + i] = pad_bit

    return instances()


def _moves(walk: Walk, unit) -> list[int]:
    """How far the address moves, modulo the ring, where each loop steps and all inside it begin again.

    The last move is from the end of an image to the next image.
    """
    stride = unit.layer.stride
    steps = (1, unit.pixel_words, unit.row_words, unit.words_per_tap,
             stride * unit.pixel_words, stride * unit.row_words)
    moves, inside = [], 0
    for values, step in zip(walk.ranges, steps, strict=True):
        moves.append((values.step * step - inside) % unit.depth)
        inside += values[-1] * step
    return [*moves, (unit.in_shape[0] * unit.row_words - inside) % unit.depth]


def inside_masks(n: int, size: int, step: int, span: int, padding: int) -> tuple[int, ...]:
    """For each of `n` windows, or groups of them, a bit per row (or column) that it spans: whether the image has it."""
    starts = (i * step - padding for i in range(n))
    return tuple(sum(1 << k for k in range(span) if 0 <= start + k < size) for start in starts)
