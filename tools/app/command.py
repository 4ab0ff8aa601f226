"""Serve a page on this machine that predicts an uploaded radiograph (PNG, JPEG or DICOM) or a test image.

The page shows the probability of each class, its threshold with sensitivity and specificity on test, and saliency maps.
It uses the networks of data/decisions.json, which `dvc repro` writes, and gives the results of tools.predict.

The page is reachable from this machine only and makes no requests to the internet. Images are never written to disk;
they are kept in memory and released some time after the page is closed. Stop the server with Ctrl+C.

Not for clinical use.
"""

import argparse
import os
import socket
from pathlib import Path

from starlette.formparsers import MultiPartParser
from streamlit import config, net_util
from streamlit.web import cli

from cxr.core.errors import InputError
from tools.app.service import load_state

EXAMPLES = """examples:
  python -m tools.app                at http://localhost:8501, or the next free port
  python -m tools.app --port 8600
"""
PAGE = Path(__file__).with_name("page.py")
LARGEST_UPLOAD = 50  # MB
# Values that the page relies on, even if they are Streamlit's defaults.
SETTINGS = (
    "--server.address=localhost",
    # Prevents DNS rebinding: a foreign page under a name that resolves to this machine could read the page.
    "--server.allowedHosts=localhost",
    "--server.allowedHosts=127.0.0.1",
    # Only the page itself may open a session or upload files.
    "--server.enableCORS=true",
    "--server.enableXsrfProtection=true",
    "--server.xsrfCookieSameSite=strict",
    "--server.enableStaticServing=false",
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
    ignore_user_settings()
    make_no_requests()
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


def ignore_user_settings() -> None:
    """Make Streamlit read neither `STREAMLIT_*` variables nor its files config.toml.

    They could add origins that may use the page, show it under another address, or load fonts from the internet.
    """
    for name in [name for name in os.environ if name.startswith("STREAMLIT_")]:
        del os.environ[name]
    config.get_config_files = lambda file_name: []  # noqa: ARG005 (Streamlit may pass it by name)


def make_no_requests() -> None:
    """Prevent the request with which Streamlit finds this machine's public address when a foreign page connects."""
    net_util.get_external_ip = lambda: None


def keep_uploads_in_memory() -> None:
    """Raise the size above which the server would write an upload to a temporary file."""
    MultiPartParser.spool_max_size = (LARGEST_UPLOAD + 1) * 2**20
