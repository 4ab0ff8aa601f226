"""Time, memory and written bytes of a command, with all processes that it starts and waits for (Linux)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from cxr.core.errors import InputError

# Linux counts the memory of a process to the peak of the processes that it starts, so a small one starts the command.
_LAUNCHER = """
import json, os, sys, time
start = time.perf_counter()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
_, status, used = os.wait4(pid, 0)
wall = time.perf_counter() - start
print(json.dumps([wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, used.ru_oublock * 512]))
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""


class Usage(NamedTuple):
    """Time, memory and written bytes of a command."""

    wall: float  # seconds
    cpu: float  # seconds of all cores, user and system
    peak: float  # bytes, the largest resident memory of one process
    written: float  # bytes written to files on disks


def measure(command: list[str], folder: Path) -> tuple[Usage, str]:
    """Run `command` in `folder`; return its usage and its output.

    Raises:
        InputError: if the command fails; the message has the end of its output.
    """
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    launch = [sys.executable, "-S", "-c", _LAUNCHER, *command]
    done = subprocess.run(launch, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{' '.join(command)} failed:\n{done.stderr.strip()[-2000:]}")
    return Usage(*json.loads(done.stdout)), done.stderr
