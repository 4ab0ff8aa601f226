"""`python -m tools.app`: serve the page."""

import cxr.core.cpu  # noqa: F401 (must precede the import of numerical libraries)

# isort: split
from cxr.core.errors import InputError, run_as_script


def main() -> None:
    """Run the command.

    Raises:
        InputError: if Streamlit is not installed.
    """
    try:
        from tools.app import command  # noqa: PLC0415 (Streamlit may be missing)
    except ModuleNotFoundError as error:
        raise InputError(f"{error}: pip install -r requirements-app.txt") from None
    command.main()


run_as_script(main)
