"""One writer to a folder at a time."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Of file systems that have no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def held(file: Path, wait: bool = False) -> Iterator[None]:
    """Holds ``file``'s folder for one process; the system lets go of it when the process ends,
    however it ends. Where there are no locks (Windows, some network disks) it holds nothing.

    Raises:
        ValueError: another process holds it, unless this one is to ``wait``.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except ModuleNotFoundError:
            pass
        except BlockingIOError:
            folder = file.parent if not file.parent.name.startswith(".") else file.parent.parent
            raise ValueError(f"another process is writing to {folder}; wait for it") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
