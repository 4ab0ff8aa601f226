"""Limits on the size of an image, checked before a file is read and before it is decoded.

They bound the memory that one file can take: a PNG of 0.6 MB may hold 600 million pixels. Radiographs are smaller: a
film of 14 x 17 inches scanned at 50 µm has 61 million pixels, and a whole spine of 43 x 150 cm at 100 µm has 64 million
and a side of 15,000.
"""

MAX_SIDE = 20_000  # pixels
MAX_PIXELS = 8192 * 8192
MAX_BYTES = 256 * 2**20  # of a file: 8192 x 8192 pixels of 16 bits, uncompressed, twice


def check_size(width: int, height: int) -> None:
    """Check the size of an image that is about to be decoded.

    Raises:
        ValueError: if it exceeds the limits or is empty.
    """
    if width < 1 or height < 1:
        raise ValueError(f"{width} x {height} pixels: an empty image")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ValueError(
            f"{width:,} x {height:,} pixels are too many for a radiograph: the limits are {MAX_SIDE:,} on a side and "
            f"{MAX_PIXELS:,} in total"
        )
