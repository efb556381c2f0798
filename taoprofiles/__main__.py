"""``python -m taoprofiles`` is ``taoprof``."""

from taoprofiles.cli.main import main

main()
