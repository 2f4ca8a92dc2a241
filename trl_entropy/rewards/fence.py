"""Run untrusted code in a separate process without network or other processes, in its own folder."""

import ctypes
import os
import platform
import resource
import shutil
import signal
import struct
import tempfile
from collections.abc import Callable


FILE_SIZE = 64 * 2**20  # bytes per file that it writes
ANSWER_SIZE = 16 * 2**20  # bytes
NO_NEW_PRIVILEGES, SECCOMP, FILTER, DEATH_SIGNAL = 38, 22, 2, 1  # for prctl
# By machine: its number in a filter, the call clone, and the refused calls: socket, socketpair, connect, fork, vfork,
# execve, execveat, kill, tkill, tgkill, pidfd_send_signal, ptrace, process_vm_readv, process_vm_writev, io_uring_setup
SYSTEM_CALLS = {
    "x86_64": (0xC000003E, 56, (41, 53, 42, 57, 58, 59, 322, 62, 200, 234, 424, 101, 310, 311, 425)),
    "aarch64": (0xC00000B7, 220, (198, 199, 203, 221, 281, 129, 130, 131, 424, 117, 270, 271, 425)),
}
CLONE3, CLONE_THREAD, OTHER_TABLE = 435, 0x10000, 0x40000000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # instructions of the filter's machine
ALLOW, KILL, REFUSE, UNKNOWN = 0x7FFF0000, 0x80000000, 0x50001, 0x50026  # EPERM; ENOSYS, so that libc uses clone


def check_fence() -> None:
    """Raise `RuntimeError` if this system has no such fence."""
    if platform.system() != "Linux" or platform.machine() not in SYSTEM_CALLS:
        raise RuntimeError(
            "the policy's code runs behind a filter of system calls, which needs Linux on "
            f"{' or '.join(SYSTEM_CALLS)}, but this is {platform.system()} on {platform.machine()}"
        )


def fenced(work: Callable[[], bytes], within: str) -> bytes:
    """
    Run `work` in a forked process behind the fence, and return its result.

    The process ends with its parent. It has the parent's memory limit, may read everything that the user may read, and
    may write files of up to 64 MB. The fence does not stop code that exploits a hole in the kernel.

    Args:
        work (`Callable[[], bytes]`):
            The work; it may use several threads.
        within (`str`):
            Folder in which it gets its own folder, which is removed afterwards.

    Raises `RuntimeError` if the process ends without a result.
    """
    folder, parent = tempfile.mkdtemp(dir=within), os.getpid()
    ours, theirs = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            _enter(folder, theirs, parent)
            with open(3, "wb") as channel:
                channel.write(work())
            os._exit(0)
        finally:  # skip the parent's exit handlers
            os._exit(1)
    os.close(theirs)
    try:
        with open(ours, "rb") as channel:
            answer = channel.read(ANSWER_SIZE)
            if channel.read(1):
                os.kill(process, signal.SIGKILL)
    finally:
        _, status = os.waitpid(process, 0)
        shutil.rmtree(folder, ignore_errors=True)
    if status:
        code = os.waitstatus_to_exitcode(status)
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        raise RuntimeError(f"the process ended {how}")
    return answer


def _enter(folder: str, channel: int, parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    _prctl(libc, DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    os.dup2(channel, 3)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update({"HOME": folder, "TMPDIR": folder, "PATH": os.defpath})
    tempfile.tempdir = folder
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    program = ctypes.create_string_buffer(_filter())
    header = struct.pack("HP", len(program) // 8, ctypes.addressof(program))
    _prctl(libc, NO_NEW_PRIVILEGES, 1)
    _prctl(libc, SECCOMP, FILTER, ctypes.create_string_buffer(header))


def _filter() -> bytes:
    """The filter, instruction by instruction: code, jumps if true and if false, number."""
    machine, clone, refused = SYSTEM_CALLS[platform.machine()]
    rows = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, machine), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    rows += [(AT_LEAST, 0, 1, OTHER_TABLE), (RETURN, 0, 0, REFUSE)]
    for number in refused:
        rows += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE)]
    rows += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, UNKNOWN)]
    rows += [(EQUAL, 0, 3, clone), (LOAD, 0, 0, 16), (ANY_BIT, 1, 0, CLONE_THREAD), (RETURN, 0, 0, REFUSE)]
    return b"".join(struct.pack("HBBI", *row) for row in (*rows, (RETURN, 0, 0, ALLOW)))


def _prctl(libc: ctypes.CDLL, option: int, *values) -> None:
    if libc.prctl(option, *values, *[0] * (4 - len(values))) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")
