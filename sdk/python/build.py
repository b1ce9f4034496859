#!/usr/bin/env python3
"""build.py SOURCE [-o COMPONENT]: builds a component from a function in Python. The first build in a folder creates the
virtual environment `.venv`, and installs the packages of requirements.txt there.

The component imports only the interfaces that the code uses: those of `evoke.state` and `evoke.http` if a file of the
folder imports them.
"""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterator, List, Set

SDK = Path(__file__).resolve().parent
WIT = next(folder for folder in (SDK / "wit", SDK.parent / "wit") if folder.is_dir())
BASE = ["bus", "wasi:config/store@0.2.0-rc.1", "wasi:logging/logging@0.1.0-draft"]
OPTIONAL = {
    "state": ["wasi:keyvalue/store@0.2.0-draft", "wasi:keyvalue/atomics@0.2.0-draft"],
    "http": ["wasi:http/outgoing-handler@0.2.0"],
}


def fail(message: str) -> None:
    sys.exit(f"build: {message}")


def tool() -> str:
    """Returns the program componentize-py, after installing it if needed."""
    own = Path(".venv/bin/componentize-py")
    if not own.exists() and not (found := shutil.which("componentize-py")):
        if not Path("requirements.txt").exists():
            fail("componentize-py is missing; run: pip install componentize-py")
        print("build: installing packages, once", file=sys.stderr)
        install = [[sys.executable, "-m", "venv", ".venv"], [".venv/bin/pip", "install", "-q", "-r", "requirements.txt"]]
        for command in install:
            if subprocess.run(command, stdout=sys.stderr).returncode != 0:
                fail(f"`{' '.join(command)}` failed; the messages are above")
    return str(own.absolute()) if own.exists() else found


def sources(folder: Path) -> Iterator[Path]:
    """Returns the Python files of the function, without the SDK and installed packages."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith((".", "__")) and path.resolve() != SDK and path.name != "target":
            yield from sources(path)
        elif path.suffix == ".py":
            yield path


def used(file: Path) -> Set[str]:
    """Returns which optional modules of the SDK the file uses."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    except SyntaxError as error:
        fail(f"{file}:{error.lineno}:{error.offset}: {error.msg}\n    {(error.text or '').strip()}")
    names: Set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "evoke":
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("evoke."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("evoke."))
    return names & OPTIONAL.keys()


def main(arguments: List[str]) -> None:
    if len(arguments) not in (1, 3) or arguments[1:2] not in ([], ["-o"]):
        fail("usage: build.py SOURCE [-o COMPONENT]")
    source = Path(arguments[0])
    if not source.is_file():
        fail(f"there is no file {source}")
    component = Path(arguments[2] if len(arguments) == 3 else source.with_suffix(".wasm")).absolute()
    folder = source.parent.absolute()
    files = list(sources(folder))
    modules = set().union(*(used(file) for file in files))
    program = tool()
    with tempfile.TemporaryDirectory(prefix="evoke-python-") as made:
        world, entry = Path(made, "wit"), Path(made, "entry")
        shutil.copytree(WIT, world)
        imports = BASE + [interface for module in sorted(modules) for interface in OPTIONAL[module]]
        lines = "".join(f"  import {interface};\n" for interface in imports)
        (world / "built.wit").write_text(f"package evoke:function@0.1.0;\n\nworld built {{\n{lines}  export handler;\n}}\n")
        entry.mkdir()
        (entry / "evoke_entry.py").write_text(
            f"import {source.stem} as function\nfrom evoke._handler import make\nEvokeFunctionHandler010 = make(function)\n"
        )
        output = Path(made, "component.wasm")
        command = [program, "-q", "-d", str(world), "-w", "built", "--full-names", "componentize", "evoke_entry"]
        paths = [str(entry), str(folder), str(SDK)]
        command += [part for path in paths for part in ("-p", path)] + ["-o", str(output)]
        environment = dict(os.environ)
        if Path(".venv").is_dir():
            environment["VIRTUAL_ENV"] = str(Path(".venv").absolute())
        if subprocess.run(command, env=environment, stdout=sys.stderr).returncode != 0:
            fail("componentize-py failed; the messages are above")
        dependencies = files + [path for path in [Path("requirements.txt")] if path.exists()]
        listed = " ".join(str(path.absolute()).replace(" ", "\\ ") for path in dependencies)
        escaped = str(component).replace(" ", "\\ ")
        component.parent.mkdir(parents=True, exist_ok=True)
        component.with_suffix(".d").write_text(f"{escaped}: {listed}\n")
        # Renamed at the end, so that no reader sees half a component.
        new = component.with_suffix(".wasm.new")
        shutil.move(output, new)
        new.replace(component)


main(sys.argv[1:])
