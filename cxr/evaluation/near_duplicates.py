"""Find near-duplicate images in different splits: the same radiograph under another name or patient.

All frontal chest radiographs are similar, so the search has two steps. A perceptual hash (signs of DCT coefficients,
after Zauner 2010, "Implementation and benchmarking of perceptual image hash functions") finds candidates among billions
of pairs. The correlation of their pixels then confirms them, after the lowest frequencies (below `MIN_FREQUENCY`) and
the mean over all images of the data set have been removed.

On 2,430 real radiographs at 128 px, none of the 2,950,031 pairs of different patients is reported (the highest
correlation is 0.90; extrapolated, fewer than 0.03 pairs in a million are reported). A copy is reported in 100 % of the
cases if it is resized, saved as JPEG with quality 30, has noise of 10 gray levels or is brighter by 25; in 99.9 % with
gamma 0.7, 98 % rotated by 1 degree, 94 % cropped by 1 % on each side, 19 % cropped by 2 %, and never if it is flipped
or inverted.
"""

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.core.errors import warn
from cxr.core.paths import METRICS
from cxr.core.progress import progress
from cxr.core.tables import SPLITS
from cxr.evaluation.schema import DuplicatePair, Duplicates

SIDE = 32  # side of a reduced image, blocks
MIN_FREQUENCY = 3  # half waves per side; lower frequencies are similar in all radiographs
MAX_DISTANCE = 10  # Hamming distance of the 64-bit hashes of a pair
MIN_CORRELATION = 0.93  # of a reported pair
# So many pairs indicate a problem other than leakage, such as a placeholder in place of many images.
MAX_PAIRS = 10_000
# Candidates that are compared: 100 times those of 112,120 real radiographs. There are more if one image has very many
# copies, or if all images look alike, such as synthetic ones.
MAX_CANDIDATES = 10_000_000
_MIN_AMPLITUDE = 0.01  # gray levels; smaller coefficients are rounding errors
CHUNK_PIXELS = 2**21  # pixels that are processed at once; more do not fit in the processor's cache
IMAGES_PER_BATCH = 8192  # images whose candidates are found and compared at once; their features take 32 MB
HASHES_PER_STEP = 16  # of a batch, compared at once with a batch of hashes of the other split: a MB
PAIRS_PER_STEP = 1024  # correlated at once: 4 MB for each image of the pairs

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]  # [n], of images
Pairs = NDArray[np.int64]  # [pairs, 2], rows of images
Features = NDArray[np.float32]  # [images, SIDE²]
Spectra = NDArray[np.float32]  # [images, SIDE, SIDE], DCT of the reduced images


def find_duplicates(images: NDArray[np.uint8], sample: pd.DataFrame) -> Duplicates:
    """Find pairs of images in different splits that are probably the same radiograph, and warn of them.

    Duplicates are not an error: they need to be confirmed by a person, and training has already finished.

    Args:
        images: uint8 [images, height, width], see `near_duplicates`.
        sample: with the columns image and split, a row for each image.
    """
    pairs = near_duplicates(images, list(sample["image"]), list(sample["split"]))
    if len(pairs):
        first = pairs.iloc[0]
        warn(
            f"{len(pairs):,} pairs of images in different splits look like the same radiograph, such as "
            f"{first['image_a']} and {first['image_b']}; see {METRICS / 'duplicates.json'}"
        )
    return Duplicates(pairs=[DuplicatePair.model_validate(row) for row in pairs.to_dict("records")])


def near_duplicates(images: NDArray[np.uint8], names: list[str], splits: list[str]) -> pd.DataFrame:
    """Return the pairs of images in different splits that are probably the same radiograph.

    Images without structure (all black) are not compared.

    Args:
        images: uint8 [images, height, width], at least 32 pixels per side; a memory map is read in chunks.
        names: name of each image.
        splits: split of each image: train, val or test.

    Returns:
        One row for each pair, in descending order of correlation, at most `MAX_PAIRS`: image_a, split_a, image_b,
        split_b, distance (Hamming distance of the hashes) and correlation (of the pixels, see the module's docstring).
    """
    hashes, mean = hash_images(images)
    name_of, split_of = np.array(names, object), np.array(splits, object)
    pairs, correlation = _confirmed(images, candidates(hashes, split_of), mean)
    a, b = pairs.T
    table = pd.DataFrame(
        {
            "image_a": name_of[a],
            "split_a": split_of[a],
            "image_b": name_of[b],
            "split_b": split_of[b],
            "distance": np.bitwise_count(hashes[a] ^ hashes[b]),
            "correlation": correlation,
        }
    )
    order = ["correlation", "image_a", "image_b"]
    return table.sort_values(order, ascending=[False, True, True], ignore_index=True).head(MAX_PAIRS)


def hash_images(images: NDArray[np.uint8]) -> tuple[Hashes, NDArray[np.float64]]:
    """Hash all images, in chunks.

    Args:
        images: uint8 [images, height, width].

    Returns:
        The hash of each image, uint64 [images]: the signs of its 8 × 8 DCT coefficients from `MIN_FREQUENCY` on, which
        do not depend on brightness and contrast; 0 for an image without structure. And the mean of the images'
        features, float64 [SIDE²].
    """
    hashes, total = np.zeros(len(images), np.uint64), np.zeros(SIDE**2)
    starts = range(0, len(images), _chunk(images))
    for start in progress(starts, "hash images", len(starts), "chunks"):
        spectra = _spectra(images[start : start + _chunk(images)])
        bits = (
            spectra[:, MIN_FREQUENCY : MIN_FREQUENCY + 8, MIN_FREQUENCY : MIN_FREQUENCY + 8].reshape(-1, 64)
            > _MIN_AMPLITUDE
        )
        hashes[start : start + len(bits)] = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
        total += _features(spectra).sum(axis=0)
    return hashes, total / len(images)


def candidates(hashes: Hashes, split_of: NDArray[np.object_]) -> Iterator[Pairs]:
    """Yield batches of pairs of images in different splits with similar hashes, the one in the earlier split first.

    A batch has the pairs of up to `IMAGES_PER_BATCH` images of the later split. After `MAX_CANDIDATES` pairs, the
    search stops with a warning.
    """
    left = MAX_CANDIDATES
    for earlier, later in combinations(SPLITS, 2):
        first, second = (np.flatnonzero((split_of == split) & (hashes != 0)) for split in (earlier, later))
        batches = _batches(second, IMAGES_PER_BATCH)
        for rows in progress(batches, f"compare {earlier} with {later}", len(batches), "batches"):
            pairs = _similar(hashes, first, rows, left)
            yield pairs
            left -= len(pairs)
            if left <= 0:
                warn(f"the search for near-duplicates stopped after {MAX_CANDIDATES:,} pairs of images that look alike")
                return


def _similar(hashes: Hashes, first: Rows, second: Rows, limit: int) -> Pairs:
    """Return the pairs of a row in `first` and a row in `second` with similar hashes, at most `limit`.

    All hashes are compared, which takes one to two nanoseconds for each pair. An index of 16-bit words is not faster
    for 112,120 images, since 3 % of the pairs of radiographs have a word in common but for two bits.
    """
    found, count = [np.empty((0, 2), np.int64)], 0
    for columns in _batches(first, IMAGES_PER_BATCH):
        for rows in _batches(second, HASHES_PER_STEP):
            near = np.bitwise_count(hashes[rows, None] ^ hashes[columns]) <= MAX_DISTANCE
            # flatnonzero is three times faster than nonzero in two dimensions.
            row, column = np.divmod(np.flatnonzero(near), len(columns))
            found.append(np.stack([columns[column], rows[row]], axis=1))
            count += len(row)
            if count >= limit:
                return np.concatenate(found)[:limit]
    return np.concatenate(found)


def _batches(rows: Rows, size: int) -> list[Rows]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _confirmed(
    images: NDArray[np.uint8], batches: Iterator[Pairs], mean: NDArray[np.float64]
) -> tuple[Pairs, NDArray[np.float64]]:
    """Return the pairs of at least `MIN_CORRELATION`, and their correlations [pairs]; stop at `MAX_PAIRS`."""
    kept, values = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for pairs, exact in _correlations(images, batches, mean.astype(np.float32)):
        # Further digits are rounding errors, and would change the order of equal pairs.
        correlation = exact.astype(np.float64).round(4)
        kept.append(pairs[correlation >= MIN_CORRELATION])
        values.append(correlation[correlation >= MIN_CORRELATION])
        if sum(map(len, values)) >= MAX_PAIRS:
            break
    return np.concatenate(kept), np.concatenate(values)


def _correlations(
    images: NDArray[np.uint8], batches: Iterator[Pairs], mean: Features
) -> Iterator[tuple[Pairs, NDArray[np.float32]]]:
    """Yield pairs of the batches and the correlations of their features, less the mean features.

    The features of an image are computed once for a batch: those of the second images are kept, those of the first
    images are computed for some images at a time.
    """
    for batch in batches:
        second, of_second = np.unique(batch[:, 1], return_inverse=True)
        kept = _features_of(images, second, mean)
        by_first = np.argsort(batch[:, 0], kind="stable")
        first, starts = np.unique(batch[by_first, 0], return_index=True)
        edges = np.append(starts[:: _chunk(images)], len(batch))
        for rows, (start, end) in zip(_batches(first, _chunk(images)), pairwise(edges), strict=True):
            features = _features_of(images, rows, mean)
            for part in _batches(by_first[start:end], PAIRS_PER_STEP):
                of_first = np.searchsorted(rows, batch[part, 0])
                yield batch[part], np.einsum("pi,pi->p", features[of_first], kept[of_second[part]])


def _features_of(images: NDArray[np.uint8], rows: Rows, mean: Features) -> Features:
    """Return the features of the images at `rows` less `mean`, as unit vectors, [rows, SIDE²]."""
    chunks = [_normalize(_features(_spectra(images[chunk])) - mean) for chunk in _batches(rows, _chunk(images))]
    return np.concatenate(chunks) if chunks else np.empty((0, SIDE**2), np.float32)


def _features(spectra: Spectra) -> Features:
    """Return the spectra without the lowest frequencies, as unit vectors, [images, SIDE²]; 0 without structure."""
    fine = spectra.copy()
    fine[:, :MIN_FREQUENCY, :MIN_FREQUENCY] = 0
    fine[(np.abs(fine) <= _MIN_AMPLITUDE).all(axis=(1, 2))] = 0
    return _normalize(fine.reshape(len(spectra), -1))


def _normalize(vectors: Features) -> Features:
    """Divide each of `vectors`, [n, SIDE²], by its norm; 0 stays 0."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-6))


def _spectra(images: NDArray[np.uint8]) -> Spectra:
    """Return the orthonormal DCT-II of the means of `SIDE` × `SIDE` blocks of whole pixels.

    An orthonormal transform keeps correlations.
    """
    height, width = images.shape[1:]
    edges, cosines = _edges(height), _cosines()
    # Integer sums of one row of blocks at a time take a third of the time of a matrix product. 16 bits hold the sum of
    # 257 pixels, the height of a block in images of 8,224 pixels.
    sums = [images[:, top:bottom].sum(axis=1, dtype=np.uint16) for top, bottom in pairwise(edges)]
    lines = np.stack(sums, axis=1).astype(np.float32).reshape(-1, width)
    across = (lines @ (_block_means(width) @ cosines.T)).reshape(-1, SIDE, SIDE)
    downwards = (cosines / np.diff(edges)).astype(np.float32)
    return downwards @ across


def _edges(pixels: int) -> NDArray[np.int64]:
    return np.arange(SIDE + 1) * pixels // SIDE


def _block_means(pixels: int) -> NDArray[np.float32]:
    """Return the matrix that averages a line of `pixels` in `SIDE` blocks, [pixels, SIDE]."""
    sizes = np.diff(_edges(pixels))
    return np.repeat(np.eye(SIDE) / sizes, sizes, axis=0).astype(np.float32)


def _cosines() -> NDArray[np.float32]:
    """Return the matrix of the orthonormal DCT-II, [SIDE, SIDE], a row for each frequency."""
    frequency, position = np.mgrid[:SIDE, :SIDE]
    spectra: NDArray[np.float64] = np.cos(np.pi * frequency * (2 * position + 1) / (2 * SIDE)) * (2 / SIDE) ** 0.5
    spectra[0] /= 2**0.5
    return spectra.astype(np.float32)


def _chunk(images: NDArray[np.uint8]) -> int:
    return max(1, CHUNK_PIXELS // (images.shape[1] * images.shape[2]))
