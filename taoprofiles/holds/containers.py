"""The engine's containers, as far as they tell whose they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taoprofiles.holds.hold import RUN_VARIABLE
from taoprofiles.system.engine import Engine, EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from taoprofiles.storage.paths import Context


class Containers:
    """Asks one engine once for its list and once about each container; what it does not answer goes to ``unseen``.

    ``ids`` are those of all that run, once they have been listed. ``known`` are answers about containers that were had
    before: nothing that is asked here changes in a container's life, but whether it runs. ``was_seen`` is whether all
    that was asked was answered, ``absent`` whether there is no engine at all. After one question without an answer no
    more are asked. ``end`` is when all must be answered, by the monotonic clock. ``failed`` says why nothing can be
    asked at all.
    """

    def __init__(
        self,
        context: Context,
        end: float,
        *,
        address: str | None = None,
        unseen: list[str] | None = None,
        known: Mapping[str, dict[str, Any] | None] | None = None,
        failed: str = "",
    ) -> None:
        self._context = context
        self.unseen = [] if unseen is None else unseen
        self._engine = Engine(context.environ, end=end, address=address)
        self._inspected: dict[str, dict[str, Any] | None] = dict(known or {})
        self._listed: list[dict[str, Any]] | None = None
        self.ids: set[str] = set()
        self.address = self._engine.address
        self.was_seen = not failed
        self.absent = False
        if failed:
            self._listed = []
            self.unseen.append(f"the container engine at {self.address} cannot be looked at: {failed}")

    def listed(self) -> list[dict[str, Any]]:
        """List those that have something of this host mounted, or our labels; none where the engine cannot be asked."""
        if self._listed is None:
            self._listed = []
            try:
                found = self._engine.containers()
                self.ids = {one["Id"] for one in found}
                self._listed = [one for one in found if one["Binds"] or one["Labels"]]
            except EngineError as error:
                self.was_seen, self.absent = False, error.absent
                if not error.absent:
                    self.unseen.append(
                        f"the container engine at {self.address} could not be looked at: {error}; a container "
                        "that needs the mapping would not be seen"
                    )
        return self._listed

    def go_on_with(self, before: Containers, keepers: set[str]) -> None:
        """Take over what was there before, since the engine did not answer: that proves the end of no container.

        Where there is no engine at all (dockerd restarts, with live-restore), only those go on that are kept still.
        """
        there = before.listed()
        self._listed = [one for one in there if one["Id"] in keepers] if self.absent else list(there)
        self.ids = {one["Id"] for one in self._listed}

    def look_at_all(self) -> dict[str, dict[str, Any] | None]:
        """Ask all that may be asked later; give the answers about those that are there, for a later ``known``."""
        return {one["Id"]: self.inspect(one["Id"]) for one in self.listed()} if self.was_seen else self._inspected

    def inspect(self, container: str) -> dict[str, Any] | None:
        """Give what is known of a container: {} where the engine does not tell, None where there is none."""
        if container not in self._inspected:
            try:
                self._inspected[container] = self._engine.inspect(container) if self.was_seen else {}
            except EngineError as error:
                self.was_seen = False
                self._inspected[container] = {}
                self.unseen.append(f"container {container[:6]} could not be looked at: {error}")
        return self._inspected[container]

    def mark_of(self, container: str) -> str | None:
        """Give the id of the run whose mark the container has; None for none."""
        for word in (self.inspect(container) or {}).get("Env", []):
            name, _, value = word.partition("=")
            if name == RUN_VARIABLE:
                return str(value)
        return None

    def is_launchers(self, container: str) -> bool:
        """Whether it was started the way the launcher does.

        Each version asks for every GPU (DeviceRequest -1), and 6.25.11 and later say who they are; Podman keeps no
        such requests, so there the image counts.

        And whether it may be ours: a container that runs as somebody else's user id is theirs, although the mounts of
        two people's projects may be the same folders.
        """
        seen = self.inspect(container)
        if not seen:
            return seen is not None  # not to be seen, so it counts
        user = seen["User"].partition(":")[0]
        theirs = user.isdigit() and int(user) not in (self._context.uid, 0) and self._context.uid != 0
        image = any(part in seen["Image"] for part in ("nvidia/tao/", "nvidia/tlt"))
        return (seen["AllGpus"] or "TAO_CLIENT_TYPE=launcher" in seen["Env"] or image) and not theirs
