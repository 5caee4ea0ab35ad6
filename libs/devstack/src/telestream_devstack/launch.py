"""Run as a script: become the child that a supervisor wants, then exec the real program.

`python -I -S launch.py PARENT SIGNAL UID GID PROGRAM ARGUMENT…` asks the kernel to send SIGNAL when the parent ends,
gives up root if UID is not "-", and execs PROGRAM. This is a program of its own because a preexec function would run
Python between fork and exec of a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_LINUX_CAPABILITY_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _give_up_root(libc: ctypes.CDLL | None, uid: int, gid: int) -> None:
    """Become another user who may still read every file: virtual environment and state directory often lie in a
    home directory that is closed to others, and its permissions are not ours to widen."""
    if libc is not None:
        libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if libc is not None:
        bit = 1 << _CAP_DAC_OVERRIDE
        data = (_Data * 2)()
        data[0] = _Data(bit, bit, bit)
        libc.capset(ctypes.byref(_Header(_LINUX_CAPABILITY_VERSION_3, 0)), data)
        libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)


def main(arguments: list[str]) -> None:
    parent, signal_number, uid, gid, *command = arguments
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if uid != "-":
        _give_up_root(libc, int(uid), int(gid))
    if libc is not None and signal_number != "0":
        # After the change of user: that clears the setting.
        libc.prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
        if os.getppid() != int(parent):
            raise SystemExit("the supervisor is gone")
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
