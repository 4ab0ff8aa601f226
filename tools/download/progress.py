"""A progress bar shared by several worker threads, which can also stop them."""

from threading import Event

from tqdm import tqdm


class StoppedError(Exception):
    """Raised in a worker thread after `Progress.stop`. The next run continues from the data received so far."""


class Progress:
    """A thread-safe progress bar of bytes, with a flag that stops the threads that use it."""

    def __init__(self, description: str, total: int, initial: int = 0) -> None:
        # disable=None: show the bar only if standard error is a terminal.
        self._bar = tqdm(None, description, total, initial=initial, unit="B", unit_scale=True, disable=None)
        self._stop = Event()

    def advance(self, count: int) -> None:
        """Advance the bar by `count` bytes, which may be negative; raise StoppedError after `stop`."""
        self.check()
        with self._bar.get_lock():
            self._bar.update(count)

    def check(self) -> None:
        """Raise StoppedError after `stop`."""
        if self._stop.is_set():
            raise StoppedError

    def pause(self, seconds: float) -> None:
        """Wait for `seconds`; raise StoppedError as soon as `stop` is called."""
        self._stop.wait(seconds)
        self.check()

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.write(text)

    def stop(self) -> None:
        """Make the other methods raise StoppedError in all threads."""
        self._stop.set()

    def close(self) -> None:
        """Close the bar and leave it on the screen."""
        self._bar.close()
