"""Writing: a file is there whole or not at all."""

import os

import pytest

from scclip_core.files import atomic_write


def test_what_is_written_replaces_the_target(tmp_path):
    target = tmp_path / "result.csv"
    target.write_text("old")
    with atomic_write(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"  # until the block ends
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_nothing_is_left_behind_on_an_error(tmp_path, error):
    with pytest.raises(error), atomic_write(tmp_path / "result.csv") as partial:
        partial.write_text("half")
        raise error
    assert not list(tmp_path.iterdir())


def test_the_writer_sees_the_targets_folder_and_suffix(tmp_path):
    # a move within one folder is atomic, and many writers choose the format by the suffix
    with atomic_write(str(tmp_path / "picture.png")) as partial:
        assert (partial.parent, partial.suffix) == (tmp_path, ".png")


def test_the_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    with atomic_write(tmp_path / "written") as partial:
        partial.write_text("")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode
    mask = os.umask(0o077)  # and asking for the mask has not changed it
    os.umask(mask)
    assert (tmp_path / "plain").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_folder_that_does_not_exist_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "gone" / "result.csv"):
        pytest.fail("the block must not run")
