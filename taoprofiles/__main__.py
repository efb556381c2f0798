"""``python -m taoprofiles`` is ``taoprof``."""

from taoprofiles.faces.main import main

main()
