"""A process that may go on computing and ask nothing of the kernel but memory, time, and what it has open.

Linux's filter of system calls (seccomp, mode 2: https://docs.kernel.org/userspace-api/seccomp_filter.html), by ctypes: a program
of classic BPF compares the number of every call with a list. A call that is not on it does nothing and fails with EPERM; one by
another architecture's numbers ends the process.
"""

import ctypes
import platform
import struct
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

__all__ = ["compute_only"]

_X86_64, _AARCH64 = 0xC000003E, 0xC00000B7  # AUDIT_ARCH_*, <linux/audit.h>
# Name -> its number on x86-64 and on aarch64: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h.
_CALLS: Mapping[str, tuple[int, int]] = MappingProxyType({
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "lseek": (8, 62),
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "mremap": (25, 216), "madvise": (28, 233),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "futex": (202, 98), "sched_yield": (24, 124), "restart_syscall": (219, 128),
    "clock_gettime": (228, 113), "gettimeofday": (96, 169), "getrandom": (318, 278),
    "exit": (60, 93), "exit_group": (231, 94),
})  # fmt: skip
_MACHINES = {"x86_64": (_X86_64, 317), "aarch64": (_AARCH64, 277)}  # and the number of seccomp itself
_SET_FILTER, _ALL_THREADS, _NO_NEW_PRIVILEGES = 1, 1, 38
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050001  # the last with EPERM
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def compute_only() -> bool:
    """Let all threads of this process make the calls of the list only, from now on; False if this cannot be had here."""
    machine = platform.machine()
    if sys.platform != "linux" or sys.maxsize < 2**32 or machine not in _MACHINES:
        return False
    architecture, number = _MACHINES[machine]
    numbers = [pair[0 if architecture == _X86_64 else 1] for pair in _CALLS.values()]
    code = _program(architecture, numbers)
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(code) // 8, code)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return False
    return bool(libc.syscall(number, _SET_FILTER, _ALL_THREADS, ctypes.byref(program)) == 0)


def _program(architecture: int, allowed: Sequence[int]) -> bytes:
    """The instructions, each struct sock_filter: code, steps if true, steps if false, operand."""
    steps = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    steps += [(_EQUAL, len(allowed) - place, 0, number) for place, number in enumerate(allowed)]
    steps += [(_RETURN, 0, 0, _FAIL), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *each) for each in steps)
