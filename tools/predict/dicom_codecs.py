"""Decoders of the pixels in DICOM files, and a plugin of pydicom for JPEG Lossless and JPEG-LS.

Pillow decodes JPEG and JPEG 2000, pydicom RLE. Only GDCM, under a permissive licence, decodes JPEG Lossless, but aborts
at some damaged images. It therefore runs in a process of its own, with limits on time and memory.
"""

import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from pydicom import Dataset
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

_GDCM = "gdcm process"
_GDCM_SYNTAXES = (JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless)
# The decoder of each compression. pydicom would take GDCM, in this process, for all but the last.
_DECODERS = {
    **dict.fromkeys((JPEGBaseline8Bit, JPEGExtended12Bit, JPEG2000Lossless, JPEG2000), "pillow"),
    **dict.fromkeys(_GDCM_SYNTAXES, _GDCM),
    RLELossless: "pydicom",
}
# Markers of JPEG's frame headers (SOF0 to SOF15, without DHT, JPG and DAC), and that of JPEG-LS (SOF55).
_FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}
_SCRIPT = Path(__file__).with_name("gdcm_decoder.py")
# What pydicom reads from a module of a plugin.
DECODER_DEPENDENCIES = dict.fromkeys(_GDCM_SYNTAXES, ("python-gdcm",))


def is_available(uid: str) -> bool:
    """Return whether the plugin can decode a transfer syntax."""
    return uid in _GDCM_SYNTAXES and find_spec("gdcm") is not None


def select_decoder(dataset: Dataset) -> None:
    """Let `dataset.pixel_array` use the decoder of this module.

    Raises:
        ValueError: if there is none for its transfer syntax.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return
    if syntax not in _DECODERS:
        raise ValueError(f"{syntax.name} is not supported: save it uncompressed")
    dataset.pixel_array_options(decoding_plugin=_DECODERS[syntax])


def jpeg_size(frame: bytes) -> tuple[int, int, int] | None:
    """Return the width, height and samples per pixel that a JPEG or JPEG-LS image declares; None without any."""
    position = 2 if frame.startswith(b"\xff\xd8") else len(frame)
    while position + 10 <= len(frame):
        marker, length, _, height, width, samples = struct.unpack_from(">xBHBHHB", frame, position)
        if marker in _FRAME_HEADERS:
            return width, height, samples
        position += 2 + length
    return None


def decode_frame(frame: bytes, runner: DecodeRunner) -> bytes:
    """Return the pixels of a compressed image, as pydicom expects it of a plugin.

    Raises:
        ValueError: if GDCM cannot decode it.
    """
    stored = runner.get_option("jls_precision", runner.bits_stored)
    if stored < 8 or runner.bits_stored < 8:
        raise ValueError("fewer than 8 bits of a pixel are not supported")
    runner.set_option("bits_allocated", 8 if stored == 8 else 16)
    bits = (runner.bits_allocated, stored, stored - 1, runner.pixel_representation)
    arguments = (_SCRIPT, runner.transfer_syntax, runner.columns, runner.rows, *bits)
    command = [sys.executable, "-I", *map(str, arguments)]
    done = subprocess.run(command, input=frame, capture_output=True, check=False)  # noqa: S603 (our own arguments)
    if done.returncode or len(done.stdout) != runner.rows * runner.columns * runner.bits_allocated // 8:
        raise ValueError("the compressed pixels are damaged or incomplete")
    return done.stdout


for _uid in _GDCM_SYNTAXES:
    get_decoder(_uid).add_plugin(_GDCM, (__name__, decode_frame.__name__))
