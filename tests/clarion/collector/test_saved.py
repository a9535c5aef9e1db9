"""Saved views: durable, bounded, of pages alone, and gone with the installation they name."""

from pathlib import Path

import pytest

from clarion.collector.saved import MOST, SavedViews, View
from clarion.errors import Conflict, InvalidInput, NotFound

WHO = "6ae262ef-6a45-8f37-a4f4-a3ea90db95e5"


@pytest.fixture
def views(tmp_path: Path) -> SavedViews:
    return SavedViews(tmp_path / "views.json")


def test_views_are_kept_by_name_for_whoever_comes_next(views: SavedViews, tmp_path: Path) -> None:
    assert views.all() == []
    assert views.save(View.of("b", "/versions", "project=shop&days=7"))
    assert views.save(View.of("A", "", ""))
    assert not views.save(View.of("b", "/live", "event=a:b"))
    again = SavedViews(tmp_path / "views.json")
    assert again.all() == [View("A", "", ""), View("b", "/live", "event=a%3Ab")]
    again.delete("A")
    assert [one.name for one in views.all()] == ["b"]
    with pytest.raises(NotFound):
        views.delete("A")


def test_only_what_pages_understand_is_kept() -> None:
    view = View.of(" shop ", "/journeys", "step=a:b&step=c:d&window=7&token=secret&next=https://example.org")
    assert view == View("shop", "/journeys", "step=a%3Ab&step=c%3Ad&window=7")


@pytest.mark.parametrize(
    ("name", "page", "query"),
    [
        ("", "/live", ""),
        ("x" * 81, "/live", ""),
        ("a/b", "/live", ""),
        ("a\nb", "/live", ""),
        ("x", "//example.org", ""),
        ("x", "https://example.org", ""),
        ("x", "/live/../..", ""),
        ("x", "/events/<b>", ""),
        ("x", "/live", "sql=" + "x" * 16_000),
        ("x", "/live", "step=a&" * 60),
    ],
)
def test_what_is_no_page_is_refused(name: str, page: str, query: str) -> None:
    with pytest.raises(InvalidInput):
        View.of(name, page, query)


def test_there_is_room_for_so_many(views: SavedViews) -> None:
    for number in range(MOST):
        views.save(View.of(f"view {number}", "", ""))
    with pytest.raises(Conflict):
        views.save(View.of("one more", "", ""))
    assert not views.save(View.of("view 7", "/live", ""))


@pytest.mark.parametrize(
    "query", [f"installation={WHO}", f"sql=SELECT+1+WHERE+installation%3D%27{WHO.upper()}%27"]
)
def test_a_view_goes_with_the_installation_it_names(views: SavedViews, query: str) -> None:
    views.save(View.of("theirs", "/live", query))
    views.save(View.of("everybody's", "/live", "days=7"))
    views.forget([WHO])
    assert [one.name for one in views.all()] == ["everybody's"]
