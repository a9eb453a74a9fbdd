"""Shapes and dtypes of tensors in annotations, as jaxtyping writes them and without needing it.

`Float[Tensor, "b c h w"]` is `Annotated[Tensor, Shape("Float", "b c h w")]`: a Tensor for type checkers, and what
`uiat.checks` reads. A name stands for one size within a signature, a number for itself, "..." for any dimensions.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

__all__ = ["Bool", "Float", "Float64", "Int", "Shape", "Shaped", "UInt8"]


@dataclass(frozen=True)
class Shape:
    """Dtype and dimensions of an annotated tensor.

    Args:
        dtype: Float (any floating point), Int, UInt8, Float64, Bool, or Shaped (any).
        dims: names and sizes of the dimensions, separated by spaces.
    """

    dtype: str
    dims: str


@dataclass(frozen=True)
class _Dtype:
    name: str

    def __getitem__(self, annotated: tuple[Any, str]) -> Any:
        kind, dims = annotated
        return Annotated[kind, Shape(self.name, dims)]


if TYPE_CHECKING:
    from typing import Annotated as Bool
    from typing import Annotated as Float
    from typing import Annotated as Float64
    from typing import Annotated as Int
    from typing import Annotated as Shaped
    from typing import Annotated as UInt8
else:
    Bool, Float, Float64, Int, Shaped, UInt8 = map(_Dtype, ("Bool", "Float", "Float64", "Int", "Shaped", "UInt8"))
