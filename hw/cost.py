"""Estimates of LUTs and block RAMs on 7-series FPGAs, as Yosys maps them; what memories take.

Every kernel has one formula, `Kernel.luts`: its `lut_terms` times its `LUT_CONSTANTS`.
`bench/fit_luts.py` takes the terms from the kernels and fits the constants.

How good they are: `tests/sim/synth/test_estimates.py` holds small kernels, none of which was
fitted to, against Yosys. Estimates of LUTs differ by at most 15 % and 8 LUTs more; those of FIFOs
by 15 % and 6, of width converters by 10 % and 5, of classifying by 10 % and 2, of
register slices and of slice selection not at all. Block RAMs are exact. A fitted constant that
doubles or vanishes puts a kernel out of these bounds.

Two shapes are known to be out of them: four rows of constant weights of three values in eight
slices side by side are estimated at a fifth less than Yosys counts; pools that take a whole row of the image in
one beat have their partial result in registers, and are estimated at up to a half more.
"""

from dataclasses import dataclass

LUT_WORDS = 64
"""Words of one bit that a LUT of six inputs holds."""
FEWEST_BLOCK_RAM_BITS = 2048
"""Smallest ROM put into block RAM by default: an eighth of 18 Kib, parity aside."""
LUT_RAMS = ((32, 6), (64, 3))
"""Words and bits that four LUTs hold as a RAM with a read port of its own."""
BLOCK_RAM_POINTS = 129
"""Points of a block RAM where Yosys compares it with LUTs (memory_libmap and the costs for xc7)."""
SHAPES = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))
"""Words and bits of a block RAM of 18 Kib. Two that are used as one of 36 Kib never hold more."""


def in_block_ram(n_words: int, width: int, ram_style: str = "auto") -> bool:
    """Tell where a ROM goes.

    "auto" is block RAM where LUTs would need multiplexers and it is not all but empty.
    """
    if ram_style == "auto":
        return n_words > LUT_WORDS and n_words * width >= FEWEST_BLOCK_RAM_BITS
    return ram_style == "block"


def ram_luts(n_words: int, width: int) -> int:
    """LUTs of a RAM with a read port of its own that is made of LUTs."""
    return _lut_ram(n_words, width)[1]


def memory_luts(n_words: int, width: int, read: range | None = None) -> int:
    """LUTs of a RAM that Yosys places as it likes; none where it is block RAM.

    `read` are the bits of a word that are read, if not all are: what holds no such bit is dropped
    after the RAM has been placed.
    """
    points, luts, bits = _lut_ram(n_words, width)
    if points > BLOCK_RAM_POINTS * block_rams(n_words, width):
        return 0
    return luts * _columns(read or range(width), bits) // _columns(range(width), bits)


def memory_block_rams(n_words: int, width: int, read: range | None = None) -> int:
    """Block RAMs of a RAM that Yosys places as it likes, see `memory_luts`.

    An even number side by side is used in pairs of 36 Kib.
    """
    if memory_luts(n_words, width):
        return 0
    depth, bits = _block_shape(n_words, width)
    in_pair = 2 if _columns(range(width), bits) % 2 == 0 else 1
    return -(-n_words // depth) * in_pair * _columns(read or range(width), in_pair * bits)


def _columns(read: range, bits: int) -> int:
    """Return how many of the parts side by side, of so many bits each, hold bits of `read`."""
    return -(-read.stop // bits) - read.start // bits


def _lut_ram(n_words: int, width: int) -> tuple[float, int, int]:
    """Points, LUTs and bits of a part of a RAM made of LUTs, in the layout of the fewest points.

    That is the one which Yosys takes.

    Four LUTs count 8 points, 7 of them in proportion to the bits that are used. Where the words
    fill several rows, a row to write is selected, which takes a LUT per row, and a row to read,
    which takes a LUT per bit and three more rows; that counts half a point per row, and per bit
    and row more.
    """
    layouts = []
    for words, bits in LUT_RAMS:
        rows, (full, rest) = -(-n_words // words), divmod(width, bits)
        points = rows * (8 * full + (1 + 7 * rest / bits if rest else 0))
        luts = 4 * rows * -(-width // bits)
        if rows > 1:
            points += 0.5 * (rows + (rows - 1) * width)
            luts += rows + -(-(rows - 1) // 3) * width
        layouts.append((points, luts, bits))
    return min(layouts)


def block_rams(n_words: int, width: int) -> int:
    """Block RAMs of 18 Kib, all of the one shape that takes the fewest."""
    depth, bits = _block_shape(n_words, width)
    return -(-n_words // depth) * -(-width // bits)


def _block_shape(n_words: int, width: int) -> tuple[int, int]:
    """Return the shape of which a memory takes the fewest block RAMs."""
    return min(SHAPES, key=lambda shape: -(-n_words // shape[0]) * -(-width // shape[1]))


@dataclass(frozen=True)
class RomShape:
    """How a ROM is laid out.

    In block RAM words that are more than fit the depth of one stand side by side, `per_row` in a
    row: words of the same row differ in the high bits of their address. A row is read and
    registered, since block RAM is slow to answer, and then the word is chosen: no multiplexer lies
    between a block RAM and a register.
    """

    n_words: int
    width: int
    block_ram: bool

    @property
    def rows(self) -> int:
        """Rows that are read: all words, or as many as the depth that takes the fewest block RAMs."""
        if not self.block_ram:
            return self.n_words
        depths = [min(self.n_words, depth) for depth in (2048, 1024, 512)]
        return min(depths, key=lambda depth: block_rams(depth, -(-self.n_words // depth) * self.width))

    @property
    def per_row(self) -> int:
        """Words side by side."""
        return -(-self.n_words // self.rows)

    @property
    def read_cycles(self) -> int:
        """From an address to its word."""
        if self.n_words == 1 or not self.block_ram:
            return 1
        return 2 if self.per_row == 1 else 3

    @property
    def luts(self) -> int:
        """LUTs: one per bit and 64 words; none where it is constant; in block RAM the choice within a row."""
        if self.n_words == 1:
            return 0
        if self.block_ram:
            return self.width * (self.per_row // 2)
        # Few words make few different tables, and equal ones are shared.
        lanes = min(self.width, 2 ** min(self.n_words, 20) - 2)
        return lanes * -(-self.n_words // LUT_WORDS)

    @property
    def block_rams(self) -> int:
        """Block RAMs of 18 Kib."""
        return block_rams(self.rows, self.per_row * self.width) if self.block_ram else 0
