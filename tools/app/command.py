"""Serve a page on this machine where one shows the networks an X-ray: PNG, JPEG or DICOM, or a sample of test.

    python -m tools.app                at http://localhost:8501, or the next port that is free
    python -m tools.app --port 8600    at this port

It says of each class how probable it is, whether it is called, what its threshold means, and where the networks see it.
It speaks for the networks that data/decisions.json names, which `dvc repro` makes, with the numbers of tools.predict.
Only this machine can reach it, and it asks nothing of the internet. An image never touches the disk; it leaves memory
some time after its page was closed, at the latest when the command ends. Ctrl+C ends it.

Not for clinical use.
"""

import argparse
import socket
from pathlib import Path

from starlette.formparsers import MultiPartParser
from streamlit.web import cli

from cxr.core.errors import InputError
from tools.app.service import service

PAGE = Path(__file__).with_name("page.py")
LARGEST_UPLOAD = 50  # MB
# Given as options, which no file or variable of the user's overrides.
SETTINGS = (
    "--server.address=localhost",
    # Else a foreign page whose name is made to point here could read what this one shows.
    "--server.allowedHosts=localhost",
    "--server.allowedHosts=127.0.0.1",
    "--server.headless=true",  # asks for no e-mail address
    f"--server.maxUploadSize={LARGEST_UPLOAD}",
    "--server.fileWatcherType=none",
    "--browser.gatherUsageStats=false",
    "--client.toolbarMode=minimal",
    "--client.showErrorDetails=none",
    "--client.showErrorLinks=false",
    "--runner.magicEnabled=false",
    # Dark, as films are read.
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
    # Before the server starts: what is missing ends the command, and the first visitor does not wait.
    service()
    keep_uploads_in_memory()
    # Without a port, Streamlit looks for a free one.
    cli.main(["run", str(PAGE), *SETTINGS, *([f"--server.port={port}"] if port is not None else [])])


def command_line() -> argparse.ArgumentParser:
    """The command's arguments; its help is this module's docstring."""
    parser = argparse.ArgumentParser(
        "python -m tools.app", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, metavar="N", help="of this machine (default: the first free from 8501 on)")
    return parser


def check_port(port: int) -> None:
    """Refuse a port that cannot be had: InputError."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("localhost", port))
        except (OSError, OverflowError) as error:
            raise InputError(f"--port {port}: {error}; name another, or none to get a free one") from None


def keep_uploads_in_memory() -> None:
    """Raise the size from which the server would write an upload to a temporary file on its way in."""
    MultiPartParser.spool_max_size = (LARGEST_UPLOAD + 1) * 2**20
