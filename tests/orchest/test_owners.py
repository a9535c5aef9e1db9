"""Owners: names of workers, and whether their process has surely ended."""

from orchest.owners import new_owner, surely_gone


def test_an_owner_is_surely_gone_only_when_its_process_has_ended() -> None:
    me = new_owner()
    host, boot, pid, start, chance = me.split("/")
    assert not surely_gone(me)
    assert surely_gone("/".join([host, boot, pid, str(int(start) + 1), chance]))
    assert surely_gone("/".join([host, "another-boot", pid, start, chance]))
    assert not surely_gone("/".join(["another-host", boot, pid, str(int(start) + 1), chance]))
    assert not surely_gone("someone")


def test_two_workers_of_one_process_have_different_names_that_fit() -> None:
    assert new_owner() != new_owner()
    assert len(new_owner()) <= 255
