"""Parameters of the stage resize."""

from pydantic import Field

from cxr.core.params import ImageSize, RawDir, Strict


class ResizeParams(Strict):
    """Parameters of the stage resize."""

    raw_dir: RawDir
    image_size: ImageSize = Field(description="height and width of the resized images, pixels")
