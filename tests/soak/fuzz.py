# SPDX-License-Identifier: Apache-2.0
"""Fuzzes the code that reads foreign files and text: runs the targets of tests/fuzz with libFuzzer,
AddressSanitizer and UndefinedBehaviorSanitizer."""
import re
import shlex
import struct
import subprocess
import sys
import time
from pathlib import Path

import watched

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {  # name: (what is read, whether it is a part of the command)
    "elf_image": ("an object in memory (`shim/elf/image.cpp`)", False),
    "elf_file": ("the symbol table of a file (`shim/elf/file.cpp`)", False),
    "options": ("the options (`shim/options.cpp`)", False),
    "core": ("a core and its notes (`cli/process/core.cpp`, `process.cpp`)", True),
    "objects": ("the file of another process's object (`cli/process/objects.cpp`)", True),
    "mappings": ("`/proc/PID/maps` (`cli/process/process.cpp`)", True),
    # The slowest comes last: it gets the time that the others leave.
    "processors": ("quotas of control groups (`shim/sharing/processors.cpp`)", False),
}
MOST_INPUTS = 10**7  # a target that has had so many leaves its time to those after it
COMPILER = ["clang++-14", "-std=c++17", "-g", "-O1", "-D_FILE_OFFSET_BITS=64",
            "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined"]


def compile_target(build, name):
    program = build / "soak/fuzz" / name
    program.parent.mkdir(exist_ok=True)
    sources = [f for folder in ("shim", "cli", "tests/fuzz") for f in (ROOT / folder).rglob("*.*")]
    if program.exists() and all(f.stat().st_mtime < program.stat().st_mtime for f in sources):
        return program
    command = [*COMPILER, f"-I{ROOT}/shim", f"-I{ROOT}/cli", f"-I{ROOT}/tests/fuzz",
               str(ROOT / f"tests/fuzz/{name}_fuzz.cpp"), "-o", str(program)]
    if TARGETS[name][1]:
        # The rest of the command is not instrumented.
        # libunwind has a C++ unwinder too, which blocks signals for each frame. gcc_s comes first.
        command += ["-Wl,--push-state,--no-as-needed", "-lgcc_s", "-Wl,--pop-state",
                    str(build / "cli/libcli.a"), "-lfmt", "-lunwind-ptrace", "-lunwind-generic",
                    "-lunwind"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"soak.sh: {shlex.join(command)}\n{done.stderr[-3000:]}")
    return program


# ---- the inputs that the fuzzer starts with ----

def small_objects(folder, page):
    """Compiles a library with each kind of hash table. Returns what is in their files."""
    files = []
    for style in ("gnu", "sysv", "both"):
        file = folder / f"{style}.so"
        subprocess.run(
            ["clang-14", "-shared", "-fPIC", "-nostdlib", f"-Wl,--hash-style={style}", "-Os",
             "-Wl,-soname,small.so", f"-Wl,-z,max-page-size={page}", "-Wl,-z,noseparate-code",
             "-x", "c", "-", "-o", str(file)],
            input="extern int missing(int); int variable = 1; static int hidden(int n) "
                  "{ return missing(n) + variable; } int function(int n) { return hidden(n); }"
                  " const char text[] = \"OpenBLAS 0.3.21\";", text=True, check=True)
        files.append(file.read_bytes())
    return files


def headers(file):
    """Returns (type, offset, address, size in the file) of each program header (elf(5))."""
    offset, = struct.unpack_from("<Q", file, 32)
    count, = struct.unpack_from("<H", file, 56)
    for i in range(count):
        kind, _, at, address, _, size, _, _ = struct.unpack_from("<IIQQQQQQ", file, offset + 56 * i)
        yield kind, at, address, size


def in_memory(file):
    """Returns the object as the dynamic linker maps it."""
    loaded = [h for h in headers(file) if h[0] == 1]
    memory = bytearray(max(address + size for _, _, address, size in loaded))
    for _, at, address, size in loaded:
        memory[address:address + size] = file[at:at + size]
    return bytes(memory)


def small_core():
    """Returns a core with a thread, a mapped file and a stack."""
    def note(kind, content):
        return struct.pack("<III", 5, len(content), kind) + b"CORE\0\0\0\0" + content

    auxiliary = struct.pack("<8Q", 3, 0x400040, 25, 0x7ff00120, 7, 0x10000, 0, 0)
    status = bytearray(336)
    struct.pack_into("<i", status, 32, 77)
    info = bytearray(136)
    struct.pack_into("<i", info, 24, 77)
    info[56:65] = b"program 1"
    files = struct.pack("<5Q", 1, 4096, 0x400000, 0x401000, 0) + b"/bin/program\0"
    notes = b"".join(note(*n) for n in ((1, bytes(status)), (3, bytes(info)), (6, auxiliary),
                                        (0x46494c45, files)))
    stack = struct.pack("<7Q", 1, 0x7ff00130, 0, 0x7ff00138, 0, 0, 0)[:48]
    stack = stack.rjust(0x100, b"\0") + auxiliary + b"program\0PATH=/bin\0".ljust(64, b"\0")
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 4, 62, 1, 0, 64, 0, 0, 64, 56, 2,
                         0, 0, 0)
    begin = 64 + 2 * 56
    table = struct.pack("<IIQQQQQQ", 4, 0, begin, 0, 0, len(notes), 0, 4)
    table += struct.pack("<IIQQQQQQ", 1, 6, begin + len(notes), 0x7ff00000, 0, len(stack),
                         len(stack), 1)
    return header + table + notes + stack


def seeds(build):
    folder = build / "soak/fuzz"
    libraries = small_objects(folder, 64)
    return {
        "elf_image": [in_memory(file) for file in libraries],
        "elf_file": libraries, "objects": small_objects(folder, 4096), "core": [small_core()],
        "options": [b"0\x001000\0keep\x00auto\0stderr", b"1\x000\0drop\x004096\0log"],
        "processors": [b"0::/a/b\n\x00150000 100000\n",
                       b"4:cpu,cpuacct:/a\n1:name=x:/\n\x00100000\n",
                       b"0::/\n\x009223372036854775807 2\n"],  # once overflowed
        "mappings": [b"00400000-00452000 r-xp 00001000 08:02 173521      /usr/bin/a (deleted)\n"
                     b"7f00-8f00 rw-p 00000000 00:00 0 \n",
                     b"0-0 rwxp \n5 6 7 8\n"],  # once read across its end
    }


def run(build, seed, end):
    rows = []
    programs = {name: compile_target(build, name) for name in TARGETS}
    start = seeds(build)
    for index, name in enumerate(TARGETS):
        corpus = build / "soak/corpus" / name
        corpus.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(start[name]):
            (corpus / f"seed-{number}").write_bytes(data)
        seconds = max(2, round((end - time.monotonic()) / (len(TARGETS) - index)))
        command = [str(programs[name]), f"-max_total_time={seconds}", f"-seed={seed % 2**31}",
                   f"-runs={MOST_INPUTS}", "-max_len=16384", "-timeout=60", "-print_final_stats=1", "-verbosity=0",
                   f"-artifact_prefix={build}/soak/{name}-", str(corpus)]
        outcome = watched.run(build, command, {}, quiet=seconds + 300, longest=seconds + 300)
        text = outcome.output.decode(errors="replace")
        executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", text)
        row = {"target": name, "inputs": int(executed[1]) if executed else 0,
               "seconds": round(outcome.seconds), "result": "nothing found"}
        if outcome.status != 0:
            row.update(result="failed", output=text[-6000:])
            print(f"fuzz: {name} failed: {watched.as_shell(command, {})}\n{text[-6000:]}", flush=True)
        rows.append(row)
        print(f"fuzz: {name}: {row['inputs']} inputs, {row['result']}", flush=True)
    return {"well": all(row["result"] == "nothing found" for row in rows), "targets": rows}


def report(result):
    lines = [f"| {TARGETS[row['target']][0]} | {row['inputs']} | {row['seconds']} | {row['result']} |"
             for row in result["targets"]]
    return """## Foreign files and text

libFuzzer gives random inputs to the code that reads foreign files and text, with AddressSanitizer and \
UndefinedBehaviorSanitizer.

| what is read | inputs | seconds | result |
| --- | --- | --- | --- |
""" + "\n".join(lines) + "\n"
