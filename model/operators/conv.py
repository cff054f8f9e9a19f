"""Binary convolution."""

from dataclasses import dataclass, replace

from cbnn.model.checks import check_range
from cbnn.model.operators.matrix import Matrix
from cbnn.model.operators.tensor import MAX_SIDE, Shape

MAX_KERNEL = 64
"""Largest height and width of a kernel: the border classes of a larger one would fill the memory."""


@dataclass(frozen=True)
class Conv(Matrix):
    """A binary convolution, thresholded; see `Matrix`."""

    slides = True
    scores = False
    out_channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    pad_bit: int = 0

    def __post_init__(self) -> None:
        check_range("out_channels of a convolution", self.out_channels, 1, MAX_SIDE)
        check_range("kernel of a convolution", self.kernel, 1, MAX_KERNEL)
        check_range("stride of a convolution", self.stride, 1, MAX_SIDE)
        check_range(f"padding of a kernel of {self.kernel}", self.padding, 0, self.kernel - 1)
        check_range("pad_bit", self.pad_bit, 0, 1)

    @property
    def n_rows(self) -> int:
        """Channels that it gives."""
        return self.out_channels

    def with_rows(self, n: int) -> "Conv":
        """Return the same convolution with other channels."""
        return replace(self, out_channels=n)

    def kernel_of(self, shape: Shape) -> tuple[int, int]:
        """Return the kernel, which is square."""
        return self.kernel, self.kernel

    def __str__(self) -> str:
        text = f"{self.out_channels}C{self.kernel}"
        text += f"S{self.stride}" if self.stride != 1 else ""
        text += f"P{self.padding}" if self.padding != (self.kernel - 1) // 2 else ""
        return text + (f"B{self.pad_bit}" if self.pad_bit else "")
