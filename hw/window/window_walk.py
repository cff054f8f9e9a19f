"""Walk through the windows of an image: addresses in the line buffer, and which pixels are padding."""

from myhdl import Signal, always, always_comb, always_seq, block, instances, intbv, modbv

from cbnn.hw.loops import loop_signals, nested_loops


class Walk:
    """Where the walk through the windows of an image is: signals of its loops, and the address.

    Each `_end` is high in the last step of its loop and of all inside it.
    """

    def __init__(self, unit):
        layer, ports = unit.layer, unit.ports
        n_rows, n_columns = unit.n_windows
        self.ranges = (
            range(unit.words_per_tap),
            range(0, layer.kernel, min(ports, layer.kernel)),
            range(0, layer.kernel, max(1, ports // layer.kernel)),
            range(unit.n_slices), range(n_columns), range(n_rows))
        indices, ends = loop_signals(*self.ranges)
        self.word, self.kernel_column, self.kernel_row, self.slice, self.column, self.row = indices
        self.word_end, self.tap_row_end, self.slice_end, self.window_end, self.row_end, self.image_end = ends
        # The first tap may lie above the image, and before the ring's first word.
        start = -layer.padding * (unit.row_words + unit.pixel_words)
        self.address = Signal(modbv(start % unit.depth)[unit.depth.bit_length() - 1 :])

    def moves(self, unit):
        """Return how far the address moves, modulo the ring, when each loop steps, and at the image's end.

        The step of a loop is undone first in all loops inside it. Nine taps of 3 x 3, of a word each, in rows of
        8 words: the address moves by 1 within a row of taps, and from its end by 8 - 2 = 6 to the next.
        """
        word, pixel, row, stride = 1, unit.pixel_words, unit.row_words, unit.layer.stride
        steps = word, pixel, row, unit.words_per_tap, stride * pixel, stride * row
        walked, moves = 0, []
        for values, step in zip(self.ranges, steps, strict=True):
            moves.append((values.step * step - walked) % unit.depth)
            walked += values[-1] * step
        return [*moves, (unit.in_shape[0] * row - walked) % unit.depth]


@block
def walk_windows(clk, rst, read, walk, unit):
    """Walk the loops image row, column, slice, kernel row, kernel column, channel word, and their address."""
    word, kernel_column, kernel_row = walk.word, walk.kernel_column, walk.kernel_row
    slice_, column, row = walk.slice, walk.column, walk.row
    word_end, tap_row_end, slice_end = walk.word_end, walk.tap_row_end, walk.slice_end
    window_end, row_end, image_end, address = walk.window_end, walk.row_end, walk.image_end, walk.address
    ends = word_end, tap_row_end, slice_end, window_end, row_end, image_end
    counting = nested_loops(clk, rst, read, (word, kernel_column, kernel_row, slice_, column, row), ends, walk.ranges)
    # The outermost loop that ends decides how far. A loop of one value ends with the loop inside it, whose place its
    # move takes.
    first, *others = walk.moves(unit)
    moves = [(None, first)]
    for values, end, move in zip(walk.ranges, ends, others, strict=True):
        if len(values) == 1:
            moves[-1] = moves[-1][0], move
        else:
            moves.append((end, move))
    chosen, choosing = moves[0][1], []
    for end, move in moves[1:]:
        inner, chosen = chosen, Signal(intbv(0)[len(address) :])
        choosing.append(choose_move(end, move, inner, chosen))

    @always_seq(clk.posedge, reset=rst)
    def step_address():
        if read:
            address.next = address + chosen

    return counting, choosing, step_address


@block
def choose_move(end, move, inner, chosen):
    """Choose the move of a loop where the loop inside it ends, else that of the loops inside."""

    @always_comb
    def choose():
        if end:
            chosen.next = move
        else:
            chosen.next = inner

    return choose


@block
def select_padding(clk, advance, walk, taps, m_tdata, unit):
    """Join the pixels read into a beat, with `pad_bit` in place of those outside the image."""
    layer, ports, width = unit.layer, unit.ports, unit.word
    pad_bit = bool(layer.pad_bit)
    row_masks = _inside(unit.n_windows[0], unit.in_shape[0], layer)
    column_masks = _inside(unit.n_windows[1], unit.in_shape[1], layer)
    row, column, kernel_row, kernel_column = walk.row, walk.column, walk.kernel_row, walk.kernel_column
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

    if ports == 1:
        @always(clk.posedge)
        def find_inside():
            if advance:
                inside.next[0] = rows_inside[kernel_row] and columns_inside[kernel_column]
    else:
        @always(clk.posedge)
        def find_inside():
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


def _inside(n: int, size: int, layer) -> tuple[int, ...]:
    """For each window row (or column) a bit per kernel row (or column): whether it lies inside the image."""
    starts = (i * layer.stride - layer.padding for i in range(n))
    return tuple(sum(1 << k for k in range(layer.kernel) if 0 <= start + k < size) for start in starts)
