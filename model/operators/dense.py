"""Binary dense layer."""

from dataclasses import dataclass, replace

from cbnn.model.checks import check_kind, check_range
from cbnn.model.operators.matrix import Matrix
from cbnn.model.operators.tensor import MAX_SIDE, Shape


@dataclass(frozen=True)
class Dense(Matrix):
    """A binary matrix-vector product: a single window over everything that enters."""

    out_features: int
    scores: bool = False
    slides = False
    # No fields: a single window has neither.
    stride = 1
    padding = pad_bit = 0

    def __post_init__(self) -> None:
        check_range("out_features of a dense layer", self.out_features, 1, MAX_SIDE)
        check_kind("scores of a dense layer", self.scores, bool)

    @property
    def n_rows(self) -> int:
        """Values that it gives."""
        return self.out_features

    def with_rows(self, n: int) -> "Dense":
        """Return the same layer with other rows."""
        return replace(self, out_features=n)

    def kernel_of(self, shape: Shape) -> tuple[int, int]:
        """Return height and width of what enters."""
        height, width, _ = shape
        return height, width

    def __str__(self) -> str:
        return f"{self.out_features}FC"
