"""Where slow results are kept, so that the second notebook need not wait for them."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import filelock
import platformdirs


def directory():
    """Return the folder of all cached files as a `Path`; it need not exist yet.

    The environment variable `VAE_UTILS_CACHE` names it, else the platform's own place for caches;
    for a user without a home, it is among the temporary files.
    """
    if named := os.environ.get("VAE_UTILS_CACHE"):
        return Path(named).absolute()
    try:
        return platformdirs.user_cache_path("vae_utils")
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "vae_utils"


def load_or_make(path, *, load, make, save):
    """Return `load(path)`; where that cannot be had, `make()`, saved for the next time.

    Processes that ask for the same file at once wait for the first, then read what it wrote.
    An unreadable file is made anew, a folder that cannot be written costs time: both are said
    in a printed line, neither is an error.

    Args:
        path: `Path` of the cached file. Its name must change with everything that it depends on.
        load: function of a path, returns the value.
        make: function without arguments, returns the value.
        save: function of a value and a path, writes the file.

    Returns:
        What `load` or `make` returned.
    """
    with locked(path) as writable:
        if os.path.exists(path):  # False too where the folder cannot be read
            try:
                return load(path)
            except Exception as error:  # whatever a damaged file makes its reader raise
                reason = f"{type(error).__name__}: {error}"
                print(f"The cached file {path.name} is unreadable ({reason}). It is made anew.")
        value = make()
        if writable:
            write_atomically(path, lambda target: save(value, target))
        return value


@contextmanager
def locked(path):
    """Hold the lock that belongs to `path`; yield False where its folder cannot be written."""
    lock = filelock.FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        reason = error.strerror or error
        print(f"Nothing can be cached in {path.parent} ({reason}). The run goes on.")
    try:
        yield lock.is_locked
    finally:
        lock.release()


def write_atomically(path, write):
    """Write a neighbour of `path`, then rename it: no reader ever sees half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            target = Path(folder) / path.name
            write(target)
            os.replace(target, path)
    except OSError as error:
        print(f"{path.name} could not be cached ({error.strerror or error}). The run goes on.")
