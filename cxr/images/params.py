"""Parameters of the stage resize."""

from pydantic import Field

from cxr.core.params import RawDir, Strict


class ResizeParams(Strict):
    """Parameters of the stage resize."""

    raw_dir: RawDir
    image_size: int = Field(ge=32, le=1024, description="height and width of the resized images, pixels")
