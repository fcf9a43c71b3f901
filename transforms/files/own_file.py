"""Files of expected names in folders that others may write: only a file of one's own is written.

Others who may write a folder may have put a link there, whose target would be written, or a file that they read and
change. So no link is followed, and an opened file is looked at by its descriptor, which nobody can exchange: a regular
file, with one name, of this user.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import stat

from transforms.errors import BroetchenError

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP})
"""The errno of `try_lock` where a filesystem has no locks."""


def open_own(
    path: str | os.PathLike[str], *, make: bool = True, flags: int = 0, mode: int = 0o666, advice: str = ""
) -> int:
    """A descriptor, to read and write, of the file of this name.

    Args:
        path: of a local file.
        make: whether it is made where there is none.
        flags: further ones of `os.open`, such as `os.O_APPEND`. Do not truncate by them: the file is looked at
            after it was opened.
        mode: of a file that is made, less the umask.
        advice: for the user, where the file is another user's; by default, to choose another folder.

    Raises:
        BroetchenError: it is a link, not a regular file, has a second name (a hard link), or is another user's; it is
            as it was.
        FileNotFoundError: there is none, and none is to be made.
        OSError: it cannot be opened or made, for another reason.
    """
    path = os.fspath(path)
    flags |= os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        if make:
            # A new one is this user's, in spite of filesystems that call all files somebody's.
            with contextlib.suppress(FileExistsError):
                return os.open(path, flags | os.O_CREAT | os.O_EXCL, mode)
        try:
            # A FIFO that nobody reads would be waited for.
            descriptor = os.open(path, flags | os.O_NONBLOCK)
        except FileNotFoundError:
            if make:
                continue  # It has gone meanwhile.
            raise
        except OSError:
            if os.path.islink(path) or not os.path.isdir(path):
                with contextlib.suppress(FileNotFoundError):
                    _check(path, os.lstat(path), advice)
            raise
        try:
            _check(path, os.fstat(descriptor), advice)
        except BroetchenError:
            os.close(descriptor)
            raise
        os.set_blocking(descriptor, True)
        return descriptor


def check_own(path: str) -> None:
    """Checks that a file of this name, if there is one, is this user's, so that it may be replaced.

    Raises:
        BroetchenError: it is another user's.
    """
    with contextlib.suppress(FileNotFoundError):
        status = os.lstat(path)
        if status.st_uid != os.geteuid():
            raise _of_another(path, status, "")


def is_at(descriptor: int, path: str) -> bool:
    """Whether the open file still has this name: it was not deleted, renamed, or replaced, by a link for one."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def try_lock(descriptor: int) -> bool:
    """Takes the lock of an open file, flock(2), which is held until all copies of the descriptor are closed.

    Returns:
        False where somebody else has it.

    Raises:
        OSError: with an errno of `NO_LOCKS`, where its filesystem has none.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def user_name(uid: int) -> str:
    """The name of a user, as messages give it."""
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


def _check(path: str, status: os.stat_result, advice: str) -> None:
    theirs = status.st_uid != os.geteuid()
    owner = f" of {user_name(status.st_uid)}" if theirs else ""
    if not stat.S_ISREG(status.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no regular file"
        raise BroetchenError(
            f"{path}: is {kind}{owner}, and nothing is written through it; delete it, or choose another folder"
        )
    if theirs:
        raise _of_another(path, status, advice)
    if status.st_nlink > 1:
        raise BroetchenError(
            f"{path}: is a file with {status.st_nlink} names (hard links), so that another would be written with it; "
            "delete this name, or choose another folder"
        )


def _of_another(path: str, status: os.stat_result, advice: str) -> BroetchenError:
    advice = advice or "ask them to delete it, or choose another folder"
    return BroetchenError(
        f"{path}: is a file of {user_name(status.st_uid)}, and is neither written nor deleted; {advice}"
    )
