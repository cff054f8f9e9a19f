"""What memories take on 7-series FPGAs, as Yosys maps them; parts of every kernel's LUT formula."""

LUT_WORDS = 64
"""Words of one bit that a LUT of six inputs holds."""
FEWEST_BLOCK_RAM_BITS = 4096
"""Smallest memory put into block RAM by default: a quarter of 18 Kib, parity aside."""


def in_block_ram(n_words: int, width: int, ram_style: str = "auto") -> bool:
    """Tell where a memory goes: "auto" is block RAM where LUTs would need multiplexers and it is not all but empty."""
    if ram_style == "auto":
        return n_words > LUT_WORDS and n_words * width >= FEWEST_BLOCK_RAM_BITS
    return ram_style == "block"


def rom_luts(n_words: int, width: int) -> int:
    """LUTs of a ROM: one per bit and 64 words; none where it is constant."""
    if n_words == 1:
        return 0
    # Few words make few different tables, and equal ones are shared.
    lanes = min(width, 2 ** min(n_words, 20) - 2)
    return lanes * -(-n_words // LUT_WORDS)


def ram_luts(n_words: int, width: int) -> int:
    """LUTs of a RAM with a read port of its own: four hold 32 words of six bits or 64 of three."""
    if n_words <= 32:
        return 4 * -(-width // 6)
    return 4 * -(-width // 3) * -(-n_words // LUT_WORDS)


def block_rams(n_words: int, width: int) -> int:
    """Block RAMs of 18 Kib: up to 36 bits wide at 512 words, half as wide at twice the depth, and so on."""
    for depth, bits in ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2)):
        if n_words <= depth:
            return -(-width // bits)
    return -(-n_words // 16384) * width
