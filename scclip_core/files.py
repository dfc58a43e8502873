"""Where the bundled data lies, and writing files so that nothing half-written is left behind."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent

# The bundled model, drawings and word lists. A wheel carries them inside the package; in a
# checkout they lie in the repository's own `data` folder.
DATA = _PACKAGE / "data" if (_PACKAGE / "data").is_dir() else _PACKAGE.parent / "data"


@contextmanager
def atomic_write(target: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `target`, which replaces `target` when the block succeeds.

    On any error the temporary file is removed and `target` stays as it was. The temporary name
    keeps the suffix of `target`, since many writers choose the format by it.
    Raises OSError when the folder of `target` does not exist or cannot be written.
    """
    target = Path(target)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".partial-", suffix=target.suffix)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o666 & ~_umask())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _umask() -> int:
    """Return the process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def require_writable(argument: str, folder: Path) -> None:
    """Make a folder; raise ValueError, naming `argument`, unless files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{argument} must be a folder that can be written, {folder} is not ({error.strerror})"
        ) from error
