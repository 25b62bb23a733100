"""Draws results on images.

Every line has a halo, every label a filled tag, and every mask a tint or a hatch that differs from the object under it,
so that they are visible on any image. Lines and tags hide as little of the objects as possible. Line widths and letters
scale with the image. A label has the same color in every run; labels in the same image have different colors unless
there are more labels than colors.
"""

from florence2.drawing.picture import draw

__all__ = ["draw"]
