from __future__ import annotations

import mmap
import os
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.rewards.sandboxed import calls as sandbox_calls
from fedgrpo.rewards.sandboxed import sandbox
from fedgrpo.rewards.sandboxed.calls import filter_program
from fedgrpo.rewards.sandboxed.shared_memory import make_private, shared_mappings

ALLOWED, REFUSED, ABSENT, KILLED = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
NUMBERS = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_OTHERS = (sandbox_calls._GUARDED, sandbox_calls._ABSENT, sandbox_calls._ZERO)
ZERO = 0x00050000
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def run(
    machine: str,
    call: str | int,
    *arguments: int,
    architecture: int | None = None,
    is_template: bool = False,
) -> int | None:
    """What the filter says of a call, by the rules of the kernel's interpreter."""
    number = call if isinstance(call, int) else called(machine, call)
    if number is None:
        return None
    here = NUMBERS[machine] if architecture is None else architecture
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<IIQ6Q", number, here, 0, *padded)
    program = filter_program(machine, is_template=is_template)
    steps = [struct.unpack_from("HBBI", program, at) for at in range(0, len(program), 8)]
    loaded = at = 0
    while True:
        code, if_true, if_false, operand = steps[at]
        at += 1
        if code == 0x20:
            loaded = struct.unpack_from("<I", data, operand)[0]
        elif code == 0x06:
            return operand
        else:
            holds = {0x15: loaded == operand, 0x25: loaded > operand, 0x45: loaded & operand}[code]
            at += if_true if holds else if_false


def tables() -> str:
    return ",".join((sandbox_calls._PLAIN, *_OTHERS))


def called(machine: str, name: str) -> int | None:
    column = list(NUMBERS).index(machine) + 1
    numbers = {row[0]: int(row[column]) for row in map(str.split, tables().split(","))}
    return numbers[name] if numbers[name] >= 0 else None


@pytest.mark.parametrize("machine", NUMBERS)
def test_the_tables_have_the_numbers_of_the_kernels_headers(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip("needs the kernel's headers")
    text = HEADERS[machine].read_text().replace("NR3264_fstatat", "NR_newfstatat")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\n", text)
    numbers = {name: int(number) for name, number in found}
    for row in map(str.split, tables().split(",")):
        assert numbers.get(row[0], -1) == called_number(row, machine), row[0]


def called_number(row: list[str], machine: str) -> int:
    return int(row[list(NUMBERS).index(machine) + 1])


@pytest.mark.parametrize("machine", NUMBERS)
def test_arguments_decide_where_a_call_can_do_both(machine: str) -> None:
    def says(call: str, *arguments: int) -> set[int | None]:
        return {run(machine, call, *arguments), None} - {None}

    assert says("clone", 0x3D0F00) == {ALLOWED}
    assert says("clone", 0x1200011) == {REFUSED}
    assert says("clone3") == {ABSENT}
    assert says("prlimit64", 0, 7, 0, 4096) == {ALLOWED}
    assert says("prlimit64", 0, 7, 4096) == says("prlimit64", 0, 7, 2**40) == {REFUSED}
    assert says("prlimit64", 1, 7, 0, 4096) == {REFUSED}
    assert says("sched_getaffinity", 0) == says("clock_gettime", 2) == {ALLOWED}
    assert says("sched_getaffinity", 1) == says("clock_gettime", 2**32 - 14) == {REFUSED}
    assert says("getpid") == says("getppid") == says("gettid") == {ZERO}
    assert says("fcntl", 3, 1030) == {ALLOWED}
    assert says("fcntl", 3, 6) == says("fcntl", 3, 8) == says("fcntl", 3, 1024) == {REFUSED}
    assert says("prctl", 15) == {ALLOWED}
    assert says("prctl", 1) == says("prctl", 22) == {REFUSED}
    assert says("ioctl", 0, 0x5401) == {ALLOWED}
    assert says("ioctl", 0, 0x5412) == {REFUSED}


@pytest.mark.parametrize("machine", NUMBERS)
def test_a_template_forks_and_opens_nothing(machine: str) -> None:
    def says(call: str | int, *arguments: int) -> int | None:
        return run(machine, call, *arguments, is_template=True)

    assert says("clone", 0x8011) == says("clone", 0x3D0F00) == ALLOWED
    assert says("clone", 0x1200011) == says("clone", 0x10008011) == REFUSED
    assert says("prctl", 1) == says("prctl", 22) == says("getppid") == ALLOWED
    assert says("prctl", 8) == REFUSED
    assert says("prlimit64", 0, 7, 4096) == ALLOWED
    assert says("prlimit64", 1, 7, 4096) == REFUSED
    opening = {"x86_64": (2, 257, 41, 53, 62, 319), "aarch64": (56, 198, 199, 129, 279)}
    assert {says(number) for number in opening[machine]} == {REFUSED}


@pytest.mark.parametrize("machine", NUMBERS)
def test_what_is_listed_is_allowed_and_nothing_else(machine: str) -> None:
    rows = list(map(str.split, sandbox_calls._PLAIN.split(",")))
    plain = {called_number(row, machine) for row in rows}
    others = {called_number(row, machine) for row in map(str.split, ",".join(_OTHERS).split(","))}
    for number in set(range(600)) - others:
        assert run(machine, number) == (ALLOWED if number in plain else REFUSED), number


@given(st.sampled_from(sorted(NUMBERS)), st.integers(600, 2**32 - 1))
def test_a_number_that_no_table_has_is_refused(machine: str, number: int) -> None:
    assert run(machine, number) == REFUSED


@pytest.mark.parametrize("machine", NUMBERS)
def test_another_architectures_calls_end_the_process(machine: str) -> None:
    assert run(machine, "read", architecture=0x40000003) == KILLED


def test_other_systems_have_no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    for system, machine in (("darwin", "arm64"), ("win32", "AMD64"), ("linux", "riscv64")):
        monkeypatch.setattr("sys.platform", system)
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        assert not sandbox.sandbox_available.__wrapped__()


SMAPS = """\
7f0000000000-7f0000001000 rw-s 00000000 00:01 7  /dev/zero (deleted)
Size:                  4 kB
VmFlags: rd wr sh mr mw me ms sd
7f0000002000-7f0000005000 r--s 00000000 08:01 9  /usr/lib/cache
VmFlags: rd mr me ms sd
7f0000006000-7f0000009000 r--s 00000000 08:01 9  /data/opened for writing
VmFlags: rd sh mr mw me ms
7f000000a000-7f000000b000 rw-p 00000000 00:00 0
VmFlags: rd wr mr mw me ac sd
"""


def test_mappings_that_can_be_written_for_others_are_found() -> None:
    assert list(shared_mappings(SMAPS)) == [(0x7F0000000000, 4096), (0x7F0000006000, 3 * 4096)]


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
def test_memory_that_was_shared_is_the_processs_own_afterwards() -> None:
    shared = mmap.mmap(-1, 3 * mmap.PAGESIZE)
    shared[:4] = b"kept"
    child = os.fork()
    if child == 0:
        make_private()
        kept = shared[:4] == b"kept" and not list(
            shared_mappings(Path("/proc/self/smaps").read_text())
        )
        shared[:4] = b"lost"
        os._exit(0 if kept and shared[:4] == b"lost" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert shared[:4] == b"kept"
