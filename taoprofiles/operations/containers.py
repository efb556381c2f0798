"""The engine's containers, as far as they tell whose they are."""

from __future__ import annotations

from taoprofiles.values.hold import RUN_VARIABLE
from taoprofiles.world.engine import Engine, EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from taoprofiles.state.paths import Context


class Containers:
    """Asks the engine once for its list and once about each container; what it does not answer goes to ``unseen``."""

    def __init__(self, context: Context, unseen: list[str]) -> None:
        self._context = context
        self._unseen = unseen
        self._engine = Engine(context.environ)
        self._inspected: dict[str, dict[str, Any] | None] = {}
        self.was_seen = True

    def listed(self) -> list[dict[str, Any]]:
        """List those that have something of this host mounted; none where the engine cannot be asked."""
        try:
            return [one for one in self._engine.containers() if isinstance(one.get("Id"), str) and binds_of(one)]
        except EngineError as error:
            if not error.absent:
                self.was_seen = False
                self._unseen.append(
                    f"the container engine at {self._engine.address} could not be looked at: {error}; a container "
                    "that needs the mapping would not be seen"
                )
            return []

    def _inspect(self, container: str) -> dict[str, Any]:
        if container not in self._inspected:
            try:
                self._inspected[container] = self._engine.inspect(container)
            except EngineError as error:
                self._unseen.append(f"container {container[:6]} could not be looked at: {error}")
        return self._inspected.get(container) or {}

    def mark_of(self, container: str) -> str | None:
        """Give the id of the run whose mark the container has; None for none."""
        for variable in (self._inspect(container).get("Config") or {}).get("Env") or []:
            name, _, value = str(variable).partition("=")
            if name == RUN_VARIABLE:
                return value
        return None

    def is_launchers(self, container: str) -> bool:
        """Whether it was started the way the launcher does: every GPU asked for, in each version (DeviceRequest -1).

        And whether it may be ours: a container that runs as somebody else's user id is theirs, although the mounts of
        two people's projects may be the same folders.
        """
        seen = self._inspect(container)
        if not seen:
            return True  # not to be seen, so it counts
        asked = (seen.get("HostConfig") or {}).get("DeviceRequests") or []
        user = str((seen.get("Config") or {}).get("User") or "").partition(":")[0]
        theirs = user.isdigit() and int(user) not in (self._context.uid, 0) and self._context.uid != 0
        return any(one.get("Count") == -1 for one in asked if isinstance(one, dict)) and not theirs


def binds_of(container: dict[str, Any]) -> dict[str, str]:
    """Give what a listed container has of this host: destination by source."""
    mounts = container.get("Mounts") or []
    return {m.get("Source", ""): m.get("Destination", "") for m in mounts if m.get("Type") == "bind"}
