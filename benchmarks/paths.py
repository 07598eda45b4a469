"""How many files and rooms of ours a request goes through, and how large and how tangled they are.

    python benchmarks/paths.py [--json]

Three ways, each in a process of its own, with the shipped adapters and base model:

    merge   `soupmix merge -w concise=0.5 out`, from the command line to the folder
    chat    one chat request to the server's ASGI app, without sockets, from its first byte to its first token
    grant   a grant given to `Engine.logits`, until the op `soupmix::coefficients` has made its coefficients

A file is touched when one of its functions is called, in any thread; functions called while a module is being imported do not
count, and neither does what a server or an engine does before the request. A room is a folder with Python files. `imported` are
the files of ours that the process has loaded at the end of the way, called or not. Lines are those of the files; a circle is a
set of modules that import one another, under TYPE_CHECKING and inside functions too.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

NAMES = ("soupmix", "soupmix_kernels")
ROOTS = tuple(str(Path(found.origin).parent) for name in NAMES if (found := find_spec(name)) and found.origin)


class Watch:
    """Notes which of our files have a function that is called."""

    def __init__(self) -> None:
        self.counting = False
        self.functions: set[tuple[str, str]] = set()
        self._ours: dict[str, bool] = {}

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        if not self.counting or event != "call":
            return
        code = frame.f_code
        called = (code.co_filename, code.co_qualname)
        if called not in self.functions and self._is_ours(code.co_filename) and not self._importing(frame):
            self.functions.add(called)

    def _is_ours(self, name: str) -> bool:
        if name not in self._ours:
            self._ours[name] = name.startswith(ROOTS)
        return self._ours[name]

    def _importing(self, frame: FrameType | None) -> bool:
        """Whether a module of ours is being run; class bodies run only then."""
        while frame is not None:
            if frame.f_code.co_name == "<module>" and self._is_ours(frame.f_code.co_filename):
                return True
            frame = frame.f_back
        return False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch this thread and those that start inside."""
        sys.setprofile(self)
        threading.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)


def merge(watch: Watch) -> None:
    from soupmix.cli import main

    sys.argv = ["soupmix", "merge", "-w", "concise=0.5", "out"]
    watch.counting = True
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
    watch.counting = False


def chat(watch: Watch) -> None:
    import uvicorn

    from soupmix.cli import main

    def run(server: uvicorn.Server, *_: object) -> None:
        asyncio.run(_first_token(server.config.app, watch))

    uvicorn.Server.run = run  # type: ignore[method-assign]
    sys.argv = ["soupmix", "serve", "--open", "--no-auth", "--database", str(Path("serve.db").resolve())]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise


async def _first_token(app: Any, watch: Watch) -> None:
    """Post a streamed chat request, and count until a token is sent."""
    asked = {
        "model": "smollm2-135m-instruct",
        "messages": [{"role": "user", "content": "Why do we sleep?"}],
        "soup": {"weights": {"concise": 0.5}},
        "stream": True,
        "max_tokens": 2,
    }
    body, sent = json.dumps(asked).encode(), b""
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http"}
    scope |= {"path": "/v1/chat/completions", "raw_path": b"/v1/chat/completions", "query_string": b"", "root_path": ""}
    scope |= {"headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "state": {}}
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    messages.put_nowait({"type": "http.request", "body": body, "more_body": False})

    async def send(message: dict[str, Any]) -> None:
        nonlocal sent
        sent += message.get("body", b"")
        if b'"content":"' in sent.replace(b'"content":""', b""):
            watch.counting = False

    watch.counting = True
    await app(scope, messages.get, send)
    if watch.counting:
        raise SystemExit(f"no token came: {sent.decode()}")


def grant(watch: Watch) -> None:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from soupmix import Engine, Policy, Store

    class UntilCoefficients(TorchDispatchMode):
        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = op(*args, **(kwargs or {}))
            if op.name().startswith("soupmix::coefficients"):
                watch.counting = False
            return made

    store = Store.shipped()
    engine, given = Engine.load("smollm2-135m-instruct", store), Policy.open(store).clamp({"concise": 0.5})
    with UntilCoefficients():
        watch.counting = True
        engine.logits(torch.tensor([[5]]), [given])
    if watch.counting:
        raise SystemExit("no coefficients were made")


WAYS: dict[str, Callable[[Watch], None]] = {"merge": merge, "chat": chat, "grant": grant}


def walk(name: str) -> dict[str, Any]:
    """One way, in this process."""
    watch = Watch()
    with watch.watching():
        WAYS[name](watch)
    files = sorted({_short(file) for file, _ in watch.functions})
    modules = {each.__file__ for each in list(sys.modules.values()) if getattr(each, "__file__", None)}
    return {
        "files": files,
        "rooms": sorted({str(Path(each).parent) for each in files}),
        "functions": len(watch.functions),
        "imported": len({each for each in modules if each.startswith(ROOTS)}),
    }


def _short(file: str) -> str:
    root = next(root for root in ROOTS if file.startswith(root))
    return str(Path(file).relative_to(Path(root).parent))


def whole() -> dict[str, Any]:
    """Number of files, their lines, and circles of imports."""
    import grimp

    lines = [len(file.read_text("utf-8").splitlines()) for root in ROOTS for file in Path(root).rglob("*.py")]
    graph = grimp.build_graph(*NAMES, exclude_type_checking_imports=False, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    return {"files": len(lines), "median": statistics.median(lines), "circles": circles(imports)}


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Sets of two or more that reach one another, the largest first."""
    reached = {each: _reached(each, imports) for each in imports}
    tied = {frozenset(b for b in reached[a] if a in reached[b]) for a in imports if a in reached[a]}
    return sorted((sorted(each) for each in tied if len(each) > 1), key=lambda each: (-len(each), each))


def _reached(start: str, imports: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    left = [start]
    while left:
        new = imports.get(left.pop(), set()) - found
        found |= new
        left += new
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print everything, with the names of the files")
    parser.add_argument("--way", choices=sorted(WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        made = walk(options.way)
        Path("way.json").write_text(json.dumps(made))
        return
    found = {"whole": whole(), **{name: _apart(name) for name in WAYS}}
    print(json.dumps(found, indent=2) if options.json else _table(found))


def _apart(name: str) -> dict[str, Any]:
    """One way in a process and a folder of its own."""
    paths = os.pathsep.join(path for path in sys.path if path)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).resolve()), "--way", name]
        environment = os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr}")
        made: dict[str, Any] = json.loads((Path(folder) / "way.json").read_text())
    return made


def _table(found: dict[str, Any]) -> str:
    whole = found["whole"]
    sizes = ", ".join(str(len(each)) for each in whole["circles"]) or "none"
    lines = ["| way | files | rooms | functions | imported |", "|---|---|---|---|---|"]
    for name in WAYS:
        way = found[name]
        lines.append(f"| {name} | {len(way['files'])} | {len(way['rooms'])} | {way['functions']} | {way['imported']} |")
    lines += ["", f"{whole['files']} files, median {whole['median']:g} lines; circles of imports: {sizes}"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
