"""The two system calls that Python does not offer: ``prctl`` and ``openat2``. Either may be missing in a machine."""

import errno
import os

try:
    import ctypes

    _libc = ctypes.CDLL(None, use_errno=True)
except (ImportError, OSError):  # a Python built without ctypes, a C library without dlopen
    ctypes = None  # type: ignore[assignment]
    _libc = None

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36

_SYS_OPENAT2 = 437  # the same on every architecture, linux/include/uapi/asm-generic/unistd.h
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_RACES = 100
"""openat2(2) answers EAGAIN when a rename anywhere raced with a ``..``; the manual asks callers to call again."""


def prctl(option: int, value: int) -> bool:
    """Whether the kernel took it."""
    if _libc is None or ctypes is None:
        return False
    zero = ctypes.c_ulong(0)
    return _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero) == 0


def openat2(root: int, path: str, flags: int) -> int:
    """Open ``path`` as if the directory descriptor ``root`` were ``/``.

    Raises:
        OSError: as the system call; ``ENOSYS`` where there is none.
    """
    if _libc is None or ctypes is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), path)
    how = (ctypes.c_uint64 * 3)(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    raw = os.fsencode(path)
    code = errno.EAGAIN
    for _ in range(_RACES):
        fd = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2), ctypes.c_int(root), raw, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
        )
        if fd >= 0:
            return int(fd)
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(code, os.strerror(code), path)
