"""Several neighbouring windows at once: they share the pixels that they have in common."""

from myhdl import Signal, always, always_comb, block, instances, intbv

from cbnn.hw.stream import joined
from cbnn.hw.window.window_walk import inside_masks


@block
def join_windows(clk, advance, row, column, taps, m_tdata, unit):
    """Join the words read into windows, with `pad_bit` in place of pixels outside the image.

    Windows of a row reach over the same rows of pixels, and each begins `stride` pixels after the
    one before. For example, two 3x3 windows at a stride of 1 span four columns of pixels: the first
    has columns 0 to 2 of them, the second columns 1 to 3.
    """
    layer, n_windows, bits, span = unit.layer, unit.mmv, unit.in_shape[2], unit.span_pixels
    kernel, stride = layer.kernel, layer.stride
    pixels = Signal(intbv(0)[kernel * span * bits :])
    words = joined(taps)
    # Columns of pixels in all words of a row, and how many of them come before the first window.
    row_pixels = len(unit.span_words) * n_windows
    skipped = -layer.padding - unit.span_words[0] * n_windows
    if layer.padding:
        inside = Signal(intbv(0)[kernel * span :])
        finding = find_inside(clk, advance, row, column, inside, unit)
        pad_bit = bool(layer.pad_bit)

        @always_comb
        def select():
            for i in range(kernel):
                for j in range(span):
                    for b in range(bits):
                        if inside[i * span + j]:
                            pixels.next[(i * span + j) * bits + b] = words[(i * row_pixels + j + skipped) * bits + b]
                        else:
                            pixels.next[(i * span + j) * bits + b] = pad_bit
    else:
        @always_comb
        def select():
            for i in range(kernel):
                for j in range(span):
                    for b in range(bits):
                        pixels.next[(i * span + j) * bits + b] = words[(i * row_pixels + j + skipped) * bits + b]

    @always_comb
    def slide():
        for window in range(n_windows):
            for i in range(kernel):
                for j in range(kernel):
                    for b in range(bits):
                        m_tdata.next[((window * kernel + i) * kernel + j) * bits + b] = pixels[
                            (i * span + window * stride + j) * bits + b]

    return instances()


@block
def find_inside(clk, advance, row, column, inside, unit):
    """Tell which pixels that windows reach over are in the image, a cycle later, with the words."""
    layer, span, kernel = unit.layer, unit.span_pixels, unit.layer.kernel
    row_masks = inside_masks(unit.n_windows[0], unit.in_shape[0], layer.stride, kernel, layer.padding)
    column_masks = inside_masks(unit.n_windows[1], unit.in_shape[1], unit.mmv * layer.stride, span, layer.padding)
    rows_inside, columns_inside = Signal(intbv(0)[kernel:]), Signal(intbv(0)[span:])

    @always_comb
    def look_up_rows():
        rows_inside.next = row_masks[row]

    @always_comb
    def look_up_columns():
        columns_inside.next = column_masks[column]

    @always(clk.posedge)
    def hold():
        if advance:
            for i in range(kernel):
                for j in range(span):
                    inside.next[i * span + j] = rows_inside[i] and columns_inside[j]

    return instances()
