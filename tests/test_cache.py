"""The cache saves time and never costs a run: not when it is damaged, shared, or read-only."""

import errno
import os
import tempfile

import platformdirs
import pytest

from vae_utils import cache

pytestmark = pytest.mark.usefixtures("own_folders")


class Recipe:
    """Counts how often a text is made, and how often it is read."""

    def __init__(self, text="slow result"):
        self.text, self.made, self.read = text, 0, 0

    def make(self):
        self.made += 1
        return self.text

    def load(self, path):
        self.read += 1
        return path.read_bytes().decode()

    def save(self, value, path):
        path.write_bytes(value.encode())

    def result(self, path):
        return cache.load_or_make(path, load=self.load, make=self.make, save=self.save)


@pytest.fixture
def recipe():
    return Recipe()


@pytest.fixture
def path(own_folders):
    return own_folders / "result.txt"


def visible_files(folder):
    return sorted(entry.name for entry in folder.iterdir() if entry.suffix != ".lock")


def test_the_environment_variable_names_the_folder(own_folders):
    assert cache.directory() == own_folders


def test_without_it_the_platform_decides(monkeypatch):
    monkeypatch.delenv("VAE_UTILS_CACHE")
    assert cache.directory() == platformdirs.user_cache_path("vae_utils")


def test_a_user_without_a_home_has_a_folder_among_the_temporary_files(monkeypatch, tmp_path):
    for name in ("VAE_UTILS_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    assert cache.directory() == tmp_path / "vae_utils"


def test_a_relative_folder_does_not_follow_the_reader_around(monkeypatch, tmp_path):
    monkeypatch.setenv("VAE_UTILS_CACHE", "here")
    monkeypatch.chdir(tmp_path)
    assert cache.directory() == tmp_path / "here"


def test_a_result_is_made_once_and_then_read(recipe, path, capsys):
    assert recipe.result(path) == "slow result"
    assert (recipe.made, recipe.read) == (1, 0)
    assert recipe.result(path) == "slow result"
    assert (recipe.made, recipe.read) == (1, 1)
    assert capsys.readouterr().out == ""
    assert visible_files(path.parent) == ["result.txt"]


def test_an_unreadable_entry_is_made_anew_and_says_so(recipe, path, capsys):
    path.parent.mkdir()
    path.write_bytes(b"\xff")  # no UTF-8
    assert recipe.result(path) == "slow result"
    notice = capsys.readouterr().out
    assert "result.txt is unreadable (UnicodeDecodeError" in notice
    assert "made anew" in notice
    assert recipe.result(path) == "slow result"
    assert (recipe.made, recipe.read) == (1, 2)
    assert capsys.readouterr().out == ""


def test_a_folder_that_cannot_be_made_costs_time_but_not_the_run(recipe, tmp_path, capsys):
    (tmp_path / "file").touch()
    beneath_a_file = tmp_path / "file" / "cache" / "result.txt"
    for times in (1, 2):
        assert recipe.result(beneath_a_file) == "slow result"
        assert recipe.made == times
        assert f"Nothing can be cached in {tmp_path / 'file' / 'cache'}" in capsys.readouterr().out


def test_an_entry_in_a_read_only_folder_is_still_read(recipe, path, monkeypatch):
    recipe.result(path)

    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(cache.filelock.FileLock, "acquire", refuse)
    assert recipe.result(path) == "slow result"
    assert (recipe.made, recipe.read) == (1, 1)


def test_a_full_disk_costs_time_but_not_the_run(recipe, path, capsys):
    def save(value, target):
        target.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    recipe.save = save
    assert recipe.result(path) == "slow result"
    assert "result.txt could not be cached (No space left on device)" in capsys.readouterr().out
    assert visible_files(path.parent) == []


def test_nobody_sees_a_file_before_it_is_complete(recipe, path):
    def save(value, target):
        assert target.suffix == path.suffix  # some writers choose the format by the name
        target.write_text("half")
        assert not path.exists()
        target.write_text(value)

    recipe.save = save
    recipe.result(path)
    assert path.read_text() == "slow result"


def test_an_old_entry_stays_until_the_new_one_is_complete(recipe, path):
    path.parent.mkdir()
    path.write_bytes(b"\xff")

    def save(value, target):
        assert path.read_bytes() == b"\xff"
        target.write_text(value)

    recipe.save = save
    recipe.result(path)
    assert path.read_text() == "slow result"


def test_an_error_while_making_reaches_the_caller_and_frees_the_lock(recipe, path):
    def fail():
        raise FloatingPointError("diverged")

    with pytest.raises(FloatingPointError, match="diverged"):
        cache.load_or_make(path, load=recipe.load, make=fail, save=recipe.save)
    assert recipe.result(path) == "slow result"


def test_an_error_while_making_is_not_blamed_on_the_folder(recipe, tmp_path):
    (tmp_path / "file").touch()
    recipe.make = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError) as caught:
        recipe.result(tmp_path / "file" / "result.txt")
    assert caught.value.__context__ is None


def test_processes_that_ask_at_once_make_the_result_once(run_python, own_folders):
    code = """
        from vae_utils import cache

        def make():
            time.sleep(0.3)  # long enough for the other process to come
            print("made")
            return "slow result"

        path = cache.directory() / "result.txt"
        meet()
        value = cache.load_or_make(
            path,
            load=lambda path: path.read_text(),
            make=make,
            save=lambda value, path: path.write_text(value),
        )
        print(value)
    """
    outputs = run_python(code, processes=3)
    assert sorted(outputs) == ["made\nslow result\n", "slow result\n", "slow result\n"]
    assert visible_files(own_folders) == ["result.txt"]


def test_a_process_killed_while_it_writes_leaves_nothing_that_is_read(
    run_python, recipe, own_folders
):
    code = """
        from vae_utils import cache

        def save(value, path):
            path.write_text("half")
            print("writing", flush=True)
            os._exit(0)  # as if killed: nothing is cleaned up

        cache.load_or_make(cache.directory() / "result.txt", load=None, make=str, save=save)
    """
    assert run_python(code) == ["writing\n"]
    assert recipe.result(own_folders / "result.txt") == "slow result"
    assert recipe.made == 1
