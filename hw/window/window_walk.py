"""Walk through the windows of an image: addresses in the line buffer, and which pixels are padding."""

from myhdl import Signal, always, always_comb, always_seq, block, instances, intbv

from cbnn.hw.stream import counter


@block
def walk_windows(clk, rst, read, row, column, kernel_row, kernel_column, read_address,
                 row_end, window_end, image_end, unit):
    """Walk the loops image row, column, slice, kernel row, kernel column, channel word, and their address."""
    layer, ports = unit.layer, unit.ports
    n_rows, n_columns = unit.n_windows
    n_slices, n_words = unit.n_slices, unit.words_per_tap
    column_step, row_step = min(ports, layer.kernel), max(1, ports // layer.kernel)
    last_kernel_row, last_kernel_column = layer.kernel - row_step, layer.kernel - column_step
    word, slice_ = counter(n_words), counter(n_slices)
    word_end, tap_row_end, slice_end = Signal(bool(0)), Signal(bool(0)), Signal(bool(0))
    depth = unit.depth
    last_word, last_slice = n_words - 1, n_slices - 1
    last_column, last_row = n_columns - 1, n_rows - 1

    # Where the address goes when each loop steps on, from the last word of the loops inside it.
    to_tap_start = n_words - 1
    to_row_start = to_tap_start + last_kernel_column * unit.pixel_words
    to_slice_start = to_row_start + last_kernel_row * unit.row_words
    to_window_start = to_slice_start + (n_slices - 1) * n_words
    to_line_start = to_window_start + (n_columns - 1) * layer.stride * unit.pixel_words
    to_image_start = to_line_start + (n_rows - 1) * layer.stride * unit.row_words
    next_column = (column_step * unit.pixel_words - to_tap_start) % depth
    next_row = (row_step * unit.row_words - to_row_start) % depth
    next_slice = (n_words - to_slice_start) % depth
    next_window = (layer.stride * unit.pixel_words - to_window_start) % depth
    next_line = (layer.stride * unit.row_words - to_line_start) % depth
    next_image = (unit.in_shape[0] * unit.row_words - to_image_start) % depth

    @always_comb
    def find_inner_ends():
        word_end.next = word == last_word
        tap_row_end.next = word == last_word and kernel_column == last_kernel_column
        slice_end.next = word == last_word and kernel_column == last_kernel_column and kernel_row == last_kernel_row

    @always_comb
    def find_outer_ends():
        window_end.next = slice_end and slice_ == last_slice
        row_end.next = slice_end and slice_ == last_slice and column == last_column
        image_end.next = (slice_end and slice_ == last_slice and column == last_column
                          and row == last_row)

    @always_seq(clk.posedge, reset=rst)
    def step_address():
        if read:
            if image_end:
                read_address.next = read_address + next_image
            elif row_end:
                read_address.next = read_address + next_line
            elif window_end:
                read_address.next = read_address + next_window
            elif slice_end:
                read_address.next = read_address + next_slice
            elif tap_row_end:
                read_address.next = read_address + next_row
            elif word_end:
                read_address.next = read_address + next_column
            else:
                read_address.next = read_address + 1

    @always_seq(clk.posedge, reset=rst)
    def step_taps():
        if read:
            if not word_end:
                word.next = word + 1
            else:
                word.next = 0
                if not tap_row_end:
                    kernel_column.next = kernel_column + column_step
                else:
                    kernel_column.next = 0
                    if not slice_end:
                        kernel_row.next = kernel_row + row_step
                    else:
                        kernel_row.next = 0

    @always_seq(clk.posedge, reset=rst)
    def step_windows():
        if read and slice_end:
            if not window_end:
                slice_.next = slice_ + 1
            else:
                slice_.next = 0
                if not row_end:
                    column.next = column + 1
                else:
                    column.next = 0
                    if not image_end:
                        row.next = row + 1
                    else:
                        row.next = 0

    return instances()


@block
def select_padding(clk, advance, row, column, kernel_row, kernel_column, taps, m_tdata, unit):
    """Join the pixels read into a beat, with `pad_bit` in place of those outside the image."""
    layer, ports, width = unit.layer, unit.ports, unit.word
    pad_bit = bool(layer.pad_bit)
    row_masks = _inside(unit.n_windows[0], unit.in_shape[0], layer)
    column_masks = _inside(unit.n_windows[1], unit.in_shape[1], layer)
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
