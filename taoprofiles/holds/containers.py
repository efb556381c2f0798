"""What one engine answers during a search for active holds, and which containers a launcher may have started."""

from collections.abc import Mapping
from typing import Any

from taoprofiles.holds.hold import RUN_VARIABLE
from taoprofiles.launcher.versions import is_tao_image
from taoprofiles.storage.paths import Context
from taoprofiles.system.engine import DENIED, Engine, EngineError


class Containers:
    """Asks one engine once for its list, and once about each container.

    - ``ids``: of all running containers, once they have been listed
    - ``unchecked``: what could not be asked, one line each; after one failure the engine is not asked again
    - ``complete``: whether the engine answered everything; ``absent``: whether there is no engine at all;
      ``denied``: whether this user may not ask it, an engine of this machine

    ``end`` is the deadline for all answers, by the monotonic clock. ``known`` are earlier results of ``inspect``:
    nothing that is used of them changes in a container's life, except ``Running``. ``failed`` is why the engine is not
    to be asked at all.
    """

    def __init__(
        self,
        context: Context,
        end: float,
        *,
        address: str | None = None,
        unchecked: list[str] | None = None,
        known: Mapping[str, dict[str, Any] | None] | None = None,
        failed: str = "",
    ) -> None:
        self._context = context
        self.unchecked = [] if unchecked is None else unchecked
        self._engine = Engine(context.environ, end=end, address=address)
        self._inspected: dict[str, dict[str, Any] | None] = dict(known or {})
        self._listed: list[dict[str, Any]] | None = None
        self.ids: set[str] = set()
        self.address = self._engine.address
        self.complete = not failed
        self.absent = self.denied = False
        if failed:
            self._listed = []
            self.unchecked.append(f"the container engine at {self.address} cannot be asked: {failed}")

    def running(self) -> list[dict[str, Any]]:
        """Return the containers that mount something of this host or have our labels; none if the engine is silent."""
        if self._listed is None:
            self._listed = []
            try:
                containers = self._engine.containers()
                self.ids = {container["Id"] for container in containers}
                self._listed = [container for container in containers if container["Binds"] or container["Labels"]]
            except EngineError as error:
                self.complete, self.absent = False, error.absent
                self.denied = error.kind == DENIED and self.address.startswith("unix:")
                if not error.absent:
                    self.unchecked.append(
                        f"cannot query the container engine at {self.address}: {error}; containers that need the "
                        "mapping may go unnoticed. To find the reason: taoprof doctor"
                    )
        return self._listed

    def assume_unchanged(self, before: "Containers") -> None:
        """Take over the list of ``before``: that the engine did not answer does not prove that a container ended."""
        self._listed = list(before.running())
        self.ids = {container["Id"] for container in self._listed}

    def inspect_all(self) -> dict[str, dict[str, Any] | None]:
        """Inspect every container that ``running`` returns; return the results, for a later ``known``."""
        if not self.complete:
            return self._inspected
        return {container["Id"]: self.inspect(container["Id"]) for container in self.running()}

    def inspect(self, container_id: str) -> dict[str, Any] | None:
        """Return ``engine.container`` of a container; {} if the engine is silent, None if there is none."""
        if container_id not in self._inspected:
            try:
                self._inspected[container_id] = self._engine.inspect(container_id) if self.complete else {}
            except EngineError as error:
                self.complete = False
                self._inspected[container_id] = {}
                self.unchecked.append(f"container {container_id[:6]} could not be inspected: {error}")
        return self._inspected[container_id]

    def run_tag(self, container_id: str) -> str | None:
        """Return the id of the run in a container's environment; None if it has none."""
        for item in (self.inspect(container_id) or {}).get("Env", []):
            name, _, value = item.partition("=")
            if name == RUN_VARIABLE:
                return str(value)
        return None

    def may_be_launcher_container(self, container_id: str) -> bool:
        """Check whether a launcher may have started a container for this user. What cannot be inspected counts.

        Every launcher requests all GPUs (DeviceRequest -1), and 6.25.11 and later identify themselves. Podman does not
        keep such requests, so there the image counts. A container that runs as another user id belongs to that user,
        although the projects of two users may mount the same folders.
        """
        container = self.inspect(container_id)
        if not container:
            return container is not None
        is_launchers = container["Gpus"] == "all" or "TAO_CLIENT_TYPE=launcher" in container["Env"]
        is_others = is_another_users(container, self._context.uid)
        return (is_launchers or is_tao_image(container["Image"])) and not is_others


def is_another_users(facts: dict[str, Any], uid: int) -> bool:
    """Check whether a container runs as another user id: it belongs to that user. Root's may be anybody's."""
    user = str(facts.get("User", "")).partition(":")[0]
    return user.isdigit() and int(user) not in (uid, 0) and uid != 0
