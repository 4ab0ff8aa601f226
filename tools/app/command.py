"""Serve a page on this machine that predicts an uploaded radiograph (PNG, JPEG or DICOM) or a test image.

The page shows the probability of each class, its threshold with sensitivity and specificity on test, and saliency maps.
It uses the networks of data/decisions.json, which `dvc repro` writes, and gives the results of tools.predict.

The page is reachable from this machine only and makes no requests to the internet. Images are never written to disk;
they are kept in memory and released some time after the page is closed. Stop the server with Ctrl+C.

Not for clinical use.
"""

import argparse
import socket
from pathlib import Path

from starlette.formparsers import MultiPartParser
from streamlit.web import cli

from cxr.core.errors import InputError
from tools.app.service import load_state

EXAMPLES = """examples:
  python -m tools.app                at http://localhost:8501, or the next free port
  python -m tools.app --port 8600
"""
PAGE = Path(__file__).with_name("page.py")
LARGEST_UPLOAD = 50  # MB
# As command-line options, so that no configuration file or environment variable of the user overrides them.
SETTINGS = (
    "--server.address=localhost",
    # Prevents DNS rebinding: a foreign page under a name that resolves to this machine could read the page.
    "--server.allowedHosts=localhost",
    "--server.allowedHosts=127.0.0.1",
    "--server.headless=true",  # no prompt for an e-mail address
    f"--server.maxUploadSize={LARGEST_UPLOAD}",
    "--server.fileWatcherType=none",
    "--browser.gatherUsageStats=false",
    "--client.toolbarMode=minimal",
    "--client.showErrorDetails=none",
    "--client.showErrorLinks=false",
    "--runner.magicEnabled=false",
    # Dark, like the viewers that radiographs are read on.
    "--theme.base=dark",
    "--theme.primaryColor=#e8a33d",
    "--theme.backgroundColor=#101214",
    "--theme.secondaryBackgroundColor=#1b1e22",
    "--theme.textColor=#e4e6e8",
)


def main() -> None:
    """Load the networks, then serve the page until Ctrl+C."""
    port = command_line().parse_args().port
    if port is not None:
        check_port(port)
    # Before the server starts, so that missing files end the command and the first visitor does not wait.
    load_state()
    keep_uploads_in_memory()
    # Without a port, Streamlit looks for a free one.
    cli.main(["run", str(PAGE), *SETTINGS, *([f"--server.port={port}"] if port is not None else [])])


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        "python -m tools.app",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, metavar="N", help="default: the first free port from 8501")
    return parser


def check_port(port: int) -> None:
    """Check that the server can listen on `port`.

    Raises:
        InputError: if it cannot.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("localhost", port))
        except (OSError, OverflowError) as error:
            raise InputError(f"--port {port}: {error}; give another port, or none to use a free one") from None


def keep_uploads_in_memory() -> None:
    """Raise the size above which the server would write an upload to a temporary file."""
    MultiPartParser.spool_max_size = (LARGEST_UPLOAD + 1) * 2**20
