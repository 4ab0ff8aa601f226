"""Parameters of test-time augmentation."""

from pydantic import Field

from cxr.core.params import Strict


class TTA(Strict):
    """Test-time augmentation: the views of each image whose probabilities are averaged. 0 and false turn a view off."""

    hflip: bool = Field(description="add a horizontal flip of each view")
    translate: float = Field(
        ge=0, lt=0.5, description="add four translations (left, right, up, down) by this fraction of the image size"
    )
    scale: float = Field(ge=0, lt=0.5, description="add a smaller and a larger view, by this relative change of scale")
    five_crop: float = Field(
        ge=0,
        lt=1,
        description="replace the whole image by five crops (corners and centre) of this fraction of its size",
    )
