"""Decode a JPEG Lossless or JPEG-LS image with GDCM: the script that `tools.predict.dicom_codecs` runs.

Reads the compressed image from standard input and writes its pixels to standard output, little-endian. It imports
nothing but GDCM, so that it starts in 0.1 s.
"""

import resource
import sys

import gdcm

SECONDS, BYTES = 30, 2**32  # of processor time and memory; an image of the largest size takes 7 s


def main() -> None:
    """Decode one image; the arguments are the UID of the transfer syntax and the values of the DICOM header."""
    syntax, (columns, rows, *bits) = sys.argv[1], map(int, sys.argv[2:])
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # macOS does not support this limit
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    sys.stdout.buffer.write(decode(sys.stdin.buffer.read(), syntax, (columns, rows), gdcm.PixelFormat(1, *bits)))


def decode(frame: bytes, syntax: str, size: tuple[int, int], pixel_format: gdcm.PixelFormat) -> bytes:
    """Return the pixels of a gray image; too few bytes if the frame is damaged.

    Args:
        frame: the compressed image.
        syntax: the UID of its transfer syntax.
        size: columns and rows.
        pixel_format: bits allocated, bits stored, high bit, and 1 for signed pixels.
    """
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((*size, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    image.SetPixelFormat(pixel_format)
    # GDCM returns the bytes as a str.
    pixels: bytes = image.GetBuffer().encode("utf-8", "surrogateescape")
    return pixels


if __name__ == "__main__":
    main()
