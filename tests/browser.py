"""Debian's chromium, for tests of what a person sees."""

import shutil

CHROMIUM = shutil.which("chromium")  # None where there is none
# It is root's in a container, draws on no screen, and asks for nothing of its own.
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking")
PHONE, WIDE = 390, 1280  # pixels
