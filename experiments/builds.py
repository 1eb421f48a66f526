"""An older build of ttqlib beside the present one, each in a process of its own, in turns: for experiments/speed.py.

The older one is the tree of a commit. What they do are the jobs of `jobs.py`.
"""

import json
import os
import resource
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from inspect import signature
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from jobs import JOBS
from results import ROOT

import ttqlib as ttq

SAFELY = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11 has it from 3.11.4 on

# ------------------------------------------------------------------------------------------------ the other processes


@contextmanager
def tree(commit: str) -> Iterator[Path]:
    """A folder with the files of a commit, which lives as long as the block.

    Raises:
        ValueError: there is no such commit here.
    """
    packed = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True)
    if packed.returncode:
        raise ValueError(f"no commit {commit!r} in this repository: {packed.stderr.decode().strip()}")
    with TemporaryDirectory() as folder:
        with tarfile.open(fileobj=BytesIO(packed.stdout)) as files:
            files.extractall(folder, **SAFELY)
        yield Path(folder)


@contextmanager
def process(build: Path, job: str, arguments: dict) -> Iterator[Callable[[str], dict]]:
    """A process with the ttqlib of the folder `build`; what is yielded has it "run" the job once, or tell its "facts".

    It ends with the block.
    """
    command = [sys.executable, __file__, job, json.dumps(arguments), str(torch.get_num_threads())]
    environment = {**os.environ, "PYTHONPATH": str(build)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
    with subprocess.Popen(command, env=environment, **pipes) as child:

        def ask(what: str):
            with suppress(BrokenPipeError):  # it has ended: nothing will be heard
                child.stdin.write(f"{what}\n".encode())
            if not (answer := child.stdout.readline()):
                raise RuntimeError(f"the build in {build} could not do {job} with {arguments}: see above")
            return json.loads(answer)

        loaded = Path(ask("where"))
        if build.resolve() not in loaded.resolve().parents:
            raise RuntimeError(f"that process has loaded {loaded}, which is not in {build}")
        yield ask  # when the pipe to it is closed, it ends


def serve(job: str, arguments: dict, threads: int) -> None:
    """In the other process: answer each line of the input with one of JSON: "where" its ttqlib is, a "run", "facts".

    Whatever else is printed goes to stderr.
    """
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(threads)
    before, made = peak_bytes(), JOBS[job](**arguments)
    ask = {
        "where": lambda: ttq.__file__,
        "run": lambda: {"seconds": made.run(), "process_bytes": peak_bytes() - before},
        "facts": made.facts,
    }
    for line in sys.stdin:
        print(json.dumps(ask[line.strip()]()), file=answers, flush=True)


def peak_bytes() -> int:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, Linux kibibytes


# -------------------------------------------------------------------------------------------------------- comparisons


def compare(job: str, arguments: dict, commit: str, rounds: int) -> dict[str, dict]:
    """What each build takes for a job: `commit` and "present" → metrics over the rounds (lists), and `facts`.

    The builds take turns. A first turn does not count: it loads libraries and makes threads. A job that asks for a
    `folder` gets one that both share; the older build is made first.
    """
    found = {name: {"seconds": [], "process_bytes": []} for name in (commit, "present")}
    with TemporaryDirectory() as shared, ExitStack() as opened:
        if "folder" in signature(JOBS[job]).parameters:
            arguments = {**arguments, "folder": f"{shared}/made"}
        older = opened.enter_context(tree(commit))
        old, new = (opened.enter_context(process(build, job, arguments)) for build in (older, ROOT))
        for turn in range(1 + rounds):
            for name, ask in zip(found, (old, new)):
                answer = ask("run")
                for key in found[name] if turn else ():
                    found[name][key].append(answer[key])
        return {name: figures | ask("facts") for (name, figures), ask in zip(found.items(), (old, new))}


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]))
