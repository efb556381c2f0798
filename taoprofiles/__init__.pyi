"""What ``import taoprofiles`` offers, for editors and type checkers; ``__init__.py`` loads it on first use."""

from typing import Any

from taoprofiles.api import Finished as Finished
from taoprofiles.api import current as current
from taoprofiles.api import hold as hold
from taoprofiles.api import run as run
from taoprofiles.api import switch as switch
from taoprofiles.api import use as use
from taoprofiles.errors import BusyError as BusyError
from taoprofiles.errors import InvalidProfileError as InvalidProfileError
from taoprofiles.errors import InvalidStateError as InvalidStateError
from taoprofiles.errors import NotFoundError as NotFoundError
from taoprofiles.errors import TaoprofError as TaoprofError
from taoprofiles.errors import UsageError as UsageError
from taoprofiles.holds.hold import HeldError as HeldError

VERSION: str

def find_commit() -> str | None: ...
def load_ipython_extension(shell: Any) -> None: ...
def unload_ipython_extension(shell: Any) -> None: ...
