"""What a job's copy of its project's files holds."""

from pathlib import Path

from orchest.pipelines import staged
from orchest.site import Site
from orchest.snapshots import take_snapshot


def test_a_pipeline_file_that_is_being_saved_is_copied_as_it_was(tmp_path: Path) -> None:
    """The file beside it may be gone the next moment; a copy that met it failed."""
    source = tmp_path / "project"
    source.mkdir()
    (source / "a.orchest").write_text("before")
    with staged(source / "a.orchest", {"name": "a"}) as place:
        assert len(list(source.iterdir())) == 2
        snapshot = take_snapshot(Site("http://localhost", tmp_path / "data"), source, "job")
        place()
    assert [(path.name, path.read_text()) for path in snapshot.path.iterdir()] == [("a.orchest", "before")]
