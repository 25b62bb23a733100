"""The former name of a part of `florence2.options`, kept for programs that import it."""

from florence2.options import check_generation

__all__ = ["check_generation"]
