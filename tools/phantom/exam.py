"""What one image is drawn from: the exam, and the random numbers that belong to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

# Streams of random numbers; the first number of each key keeps them apart.
ANATOMY, EXPOSURE, LESION, HISTORY = range(4)


def stream_of(stream: int, seed: int, *key: int) -> Generator:
    """Random numbers that depend on these integers alone, never on what was drawn before.

    NumPy pads short keys with zeros, so a last 0 in `key` gives the same numbers as none.
    """
    return np.random.default_rng([stream, seed, *key])


@dataclass(frozen=True)
class Exam:
    """One image to draw."""

    seed: int
    patient: int
    number: int  # of the image among the patient's, from 0
    age: int  # years
    sex: str  # M or F
    view: str  # PA, or AP: taken at the bedside
    strengths: Mapping[str, float] = field(default_factory=dict)  # of each positive, in (0, 1]; near 0 it is unseen

    def random(self, stream: int, *key: int) -> Generator:
        """Random numbers that depend on the seed, the patient and `key`, not on which image it is."""
        return stream_of(stream, self.seed, self.patient, *key)
