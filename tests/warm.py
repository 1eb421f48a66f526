"""Kernels that are forked from a process which has imported the libraries: one starts in 0.3 s of CPU time, not in 5.

It is the usual kernel in a process of its own, with the folder, the environment and the streams that its manager gives
it. What a manager starts, by a kernelspec, is a small process that asks for it (`ask`): the two live and die together.
Chapters as a whole (`make chapters`) start theirs in the plain way, where a forgotten import shows.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE


@contextlib.contextmanager
def kernels() -> Iterator[str]:
    """While it is open, whoever has what it yields as JUPYTER_PATH gets such kernels under the name of python3."""
    with tempfile.TemporaryDirectory(prefix="ttq-warm-") as folder:  # a short path: that of a socket must be
        address, specs = f"{folder}/socket", Path(folder) / "kernels" / "python3"
        specs.mkdir(parents=True)
        argv = [sys.executable, "-IS", __file__, address, "-f", "{connection_file}"]
        spec = {"argv": argv, "display_name": "Python 3", "language": "python"}
        (specs / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
        command, pipes = [sys.executable, "-m", "tests.warm", address], {"stdin": PIPE, "stdout": PIPE}
        with subprocess.Popen(command, **pipes, cwd=Path(__file__).parents[1]) as server:
            if server.stdout.readline() != b"ready\n":
                raise RuntimeError("the process that kernels are forked from did not start")
            yield folder  # then stdin is closed: the process ends, and so do its kernels


def serve(address: str) -> None:
    """Import what chapters use, then fork a kernel for each that asks, until stdin is closed. Nothing computes here."""
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as ipykernel sets it before an import
    os.environ["JPY_PARENT_PID"] = str(os.getpid())  # read when ipykernel is imported: kernels end when this one has
    import datasets  # noqa: F401
    import ipykernel.kernelapp
    import ipywidgets  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import transformers

    import ttqlib

    for name in ("BertModel", "AutoTokenizer", "Trainer"):
        getattr(transformers, name)
    for name in ("compress_", "explore", "plots", "check", "QATTrainer"):
        getattr(ttqlib, name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a kernel
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                become_kernel(connection)
                ipykernel.kernelapp.launch_new_instance()
                os._exit(0)
            connection.close()


def become_kernel(connection: socket.socket) -> None:
    """In the fork: take over what the one who asks has."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    asked = json.loads(connection.makefile().readline())
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = ["ipykernel_launcher", *asked["arguments"]]
    connection.sendall(b"%d\n" % os.getpid())
    threading.Thread(target=lambda: (connection.recv(1), os._exit(1)), daemon=True).start()  # the other has ended


def ask(address: str, *arguments: str) -> None:
    """Ask for a kernel, pass signals on to it, and end when it ends."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [b"."], [0, 1, 2])
        asked = {"folder": os.getcwd(), "environment": dict(os.environ), "arguments": arguments}
        connection.sendall(json.dumps(asked).encode() + b"\n")
        kernel = int(connection.makefile().readline())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os.kill(kernel, number))
        connection.recv(1)


if __name__ == "__main__":
    (ask if len(sys.argv) > 2 else serve)(*sys.argv[1:])
