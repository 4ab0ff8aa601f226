"""One bar for several workers, and the word that they must stop."""

from threading import Event

from tqdm import tqdm


class StoppedError(Exception):
    """Raised in a worker whose work is no longer wanted; what it has so far is where the next run goes on."""


class Progress:
    """A bar of bytes that several threads move, and by which they learn that they must stop."""

    def __init__(self, what: str, total: int, already: int = 0) -> None:
        # disable=None: a bar where a terminal watches, nothing where none does.
        self._bar = tqdm(None, what, total, initial=already, unit="B", unit_scale=True, disable=None)
        self._stop = Event()

    def advance(self, count: int) -> None:
        """Move the bar by `count` bytes, back where it is negative; raise StoppedError after `stop`."""
        self.check()
        with self._bar.get_lock():
            self._bar.update(count)

    def check(self) -> None:
        """Raise StoppedError after `stop`."""
        if self._stop.is_set():
            raise StoppedError

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond `stop`."""
        self._stop.wait(seconds)
        self.check()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.write(text)

    def stop(self) -> None:
        """Let every thread that asks raise StoppedError."""
        self._stop.set()

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()
