from hypothesis import given, settings
from hypothesis import strategies as st

from orchest.executor.plan import Plan
from orchest.states import Status

GRAPHS = st.integers(1, 8).flatmap(
    lambda size: st.tuples(*[st.sets(st.integers(0, max(n - 1, 0)), max_size=n) for n in range(size)])
)


@settings(deadline=None)  # shared, slow machines
@given(graph=GRAPHS, data=st.data())
def test_any_order_of_ends_keeps_the_rules(graph: tuple[set[int], ...], data: st.DataObject) -> None:
    incoming = {str(n): [str(before) for before in sorted(befores)] for n, befores in enumerate(graph)}
    plan, running, failed = Plan(incoming), [], set()
    while True:
        while (uuid := plan.start_next()) is not None:
            assert all(plan.statuses[before] is Status.SUCCESS for before in incoming[uuid])
            running.append(uuid)
        if not running:
            break
        uuid = running.pop(data.draw(st.integers(0, len(running) - 1)))
        status = data.draw(st.sampled_from([Status.SUCCESS, Status.FAILURE]))
        if status is Status.FAILURE:
            failed.add(uuid)
        aborted = plan.finish(uuid, status)
        assert all(plan.statuses[after] is Status.ABORTED for after in aborted)
    for uuid, befores in incoming.items():
        doomed = any(plan.statuses[before] is not Status.SUCCESS for before in befores)
        assert (plan.statuses[uuid] is Status.ABORTED) == doomed
    assert plan.outcome() is (Status.FAILURE if failed else Status.SUCCESS)


def test_aborting_ends_what_has_not_started() -> None:
    plan = Plan({"a": [], "b": ["a"], "c": []})
    assert plan.start_next() == "a"
    assert plan.abort_pending() == ["b", "c"]
    assert plan.start_next() is None
    assert plan.outcome() is Status.STARTED
    plan.finish("a", Status.ABORTED)
    assert plan.outcome() is Status.ABORTED


def test_an_empty_run_succeeds() -> None:
    assert Plan({}).outcome() is Status.SUCCESS
