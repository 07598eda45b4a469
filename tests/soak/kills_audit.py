"""kill -9 while an audit log is written, again and again.

    python -m tests.soak.kills_audit [KILLS] [--seed 0]

A child opens the log and appends from four threads, makes checkpoints and erases people; it says what was acknowledged.
At a random moment it is killed; then the log must verify, hold every acknowledged record, and open again. Every 20 kills a
new log is begun, so that beginning one is interrupted too. Prints one line of JSON; exit code 1 if anything was lost or torn.
This is a crash of a process: the machine, and what it holds in memory for the disk, live on.
"""

import itertools
import os
import random
import signal
import threading
import time
import traceback
from collections import Counter
from hashlib import sha256
from pathlib import Path

from soupmix.audit import AuditLog, Record, pseudonym, read_records, verify
from soupmix.errors import AuditError
from soupmix.weights import Weights
from tests.support.killing import main

PER_LOG = 20
OPTIONS = {"checkpoint_every": 7, "segment_bytes": 20_000}


def child(folder: Path, pipe: int, seed: int) -> None:
    """Append until killed. Tells "open", then "r <sequence> <digest>" and "e <person>" for what was acknowledged."""
    log = AuditLog.open(folder, **OPTIONS)
    os.write(pipe, b"open\n")

    def work(thread: int) -> None:
        rng = random.Random(f"{seed} {thread}")
        for number in itertools.count():
            person = f"person {thread} {rng.randrange(5)}"
            micro = Weights.from_micro({"elementary": rng.randrange(10**6), "friendly": number})
            receipt = log.append(Record("grant", person=person, requested=micro, granted=micro))
            os.write(pipe, f"r {receipt.sequence} {receipt.digest}\n".encode())
            if rng.random() < 0.02:
                gone = f"person {thread} {seed} {number}"
                log.append(Record("grant", person=gone))
                log.erase(gone)
                os.write(pipe, f"e {gone}\n".encode())
            if rng.random() < 0.05:
                log.checkpoint()

    for thread in range(3):
        threading.Thread(target=work, args=(thread,), daemon=True).start()
    work(3)


def kill_once(folder: Path, rng: random.Random, seed: int, seen: Counter[str]) -> list[str]:
    """Start a child, kill it, and say what it had acknowledged."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        try:
            child(folder, writing, seed)
        finally:
            traceback.print_exc()
            os._exit(70)  # an error, if it was not killed
    os.close(writing)
    time.sleep(rng.random() ** 2 * 0.3)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    if not os.WIFSIGNALED(status):
        seen["failed children"] += 1
    with os.fdopen(reading) as pipe:
        told = pipe.read().splitlines()
    if "open" not in told:
        seen["killed while opening"] += 1
    return told


def check(folder: Path, told: list[str], records: dict[int, str], erased: set[str], seen: Counter[str]) -> None:
    """The log against everything that was acknowledged so far."""
    for kind, what, *rest in (line.split(" ", 2) for line in told if line != "open"):
        if kind == "r":
            records[int(what)] = rest[0]
        else:
            erased.add(" ".join([what, *rest]))
    try:
        verdict = verify(folder)
    except AuditError:  # killed before there was a log
        seen["lost"] += len(records) + len(erased)
        return
    seen["unfinished lines"] += verdict.unfinished > 0
    seen["torn"] += not verdict.ok
    digests = dict(enumerate(sha256(b"\0" + line).hexdigest() for line, _ in read_records(folder)))
    seen["lost"] += sum(digests.get(sequence) != digest for sequence, digest in records.items())
    seen["not forgotten"] += sum(pseudonym(folder, person) is not None for person in erased)


def run(kills: int, seed: int, home: Path) -> dict[str, int]:
    """So many kills; what happened, counted. "lost", "torn", "not forgotten" and "failed children" must be 0."""
    rng, seen = random.Random(seed), Counter[str]()
    for name in ("lost", "torn", "not forgotten", "failed children", "acknowledged", "killed while opening"):
        seen[name] = 0
    for number in range(kills):
        if number % PER_LOG == 0:
            folder, records, erased = home / f"log{number}", dict[int, str](), set[str]()
        before = len(records) + len(erased)
        check(folder, kill_once(folder, rng, seed * 10**6 + number, seen), records, erased, seen)
        seen["acknowledged"] += len(records) + len(erased) - before
        if (number + 1) % PER_LOG == 0 or number + 1 == kills:
            begin = time.perf_counter()
            with AuditLog.open(folder, **OPTIONS) as log:
                seen["slowest start, ms"] = max(seen["slowest start, ms"], round(1000 * (time.perf_counter() - begin)))
                log.append(Record("grant", person="the last"))
            seen["torn"] += not verify(folder).ok
    return {"kills": kills, **seen}


if __name__ == "__main__":
    main(run, __doc__ or "", ("lost", "torn", "not forgotten", "failed children"))
