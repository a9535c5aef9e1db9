"""Which step may start now: the step graph and how far it is. Pure: no process, no clock."""

from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter

from orchest.states import Status


class Plan:
    """The order of a run. ``graph`` maps each step to those it waits for; all must be in it, no cycles.

    A step that fails takes with it everything that waits for it, directly or not; the rest goes on.
    """

    def __init__(self, graph: Mapping[str, Iterable[str]]) -> None:
        self.statuses = dict.fromkeys(graph, Status.PENDING)
        self._after: dict[str, list[str]] = {uuid: [] for uuid in graph}
        for uuid, incoming in graph.items():
            for before in incoming:
                self._after[before].append(uuid)
        self._sorter = TopologicalSorter(graph)
        self._sorter.prepare()
        self._ready: list[str] = []

    def start_next(self) -> str | None:
        """Mark one step that may run now as STARTED; None when all that is left must wait."""
        self._ready.extend(self._sorter.get_ready())
        while self._ready:
            uuid = self._ready.pop(0)
            if self.statuses[uuid] is Status.PENDING:
                self.statuses[uuid] = Status.STARTED
                return uuid
        return None

    def finish(self, uuid: str, status: Status) -> list[str]:
        """A started step ended; answers with the steps that are thereby ABORTED, nearest first."""
        self.statuses[uuid] = status
        if status is Status.SUCCESS:
            self._sorter.done(uuid)
            return []
        aborted: list[str] = []
        waiting = [uuid]
        while waiting:
            for after in self._after[waiting.pop(0)]:
                if self.statuses[after] is Status.PENDING:
                    self.statuses[after] = Status.ABORTED
                    aborted.append(after)
                    waiting.append(after)
        return aborted

    def abort_pending(self) -> list[str]:
        """Nothing more will start: every PENDING step becomes ABORTED and is answered."""
        pending = [uuid for uuid, status in self.statuses.items() if status is Status.PENDING]
        self.statuses.update(dict.fromkeys(pending, Status.ABORTED))
        return pending

    def outcome(self) -> Status:
        """What the whole run is: FAILURE if any step failed, else ABORTED if any was, else SUCCESS."""
        statuses = set(self.statuses.values())
        if not all(status.final for status in statuses):
            return Status.STARTED
        for status in (Status.FAILURE, Status.ABORTED):
            if status in statuses:
                return status
        return Status.SUCCESS
