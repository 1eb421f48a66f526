"""Several computers in one: network namespaces of this machine, joined by a switch, each behind a link of a set rate.

A node has an interface of its own, `eth0`, and sees nothing but the other nodes. What it sends passes a token bucket
of the kernel (tc-tbf(8)), so that a link of 100 Mbit/s is one to every program, with the headers of TCP and all; from
about 400 Mbit/s on the bucket takes frames of 64 kB, and these have their headers once. Linux only, and for root only.
Nothing of the machine's own network is touched, and nothing is left when a block ends.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

INTERFACE = "eth0"  # of each node
NAME = "ttq-{process}-{node}"
BURST = 0.0013  # seconds that a link may send at once after a rest: 16 kB at 100 Mbit/s
LATENCY = "100ms"  # how long what was sent may wait in the queue of the link before it is dropped


@dataclass(frozen=True)
class Node:
    """One computer of the network: the name of its namespace, and its address."""

    name: str
    address: str

    def command(self, *arguments: str) -> list[str]:
        """A command line that runs another one there."""
        return ["ip", "netns", "exec", self.name, *arguments]


def missing() -> str | None:
    """Why there can be no nodes here, if that is so."""
    if tools := [name for name in ("ip", "tc") if shutil.which(name) is None]:
        return f"network namespaces need {' and '.join(tools)}, of the Debian package iproute2"
    probe = NAME.format(process=os.getpid(), node="probe")
    try:
        _run("ip", "netns", "add", probe)
    except OSError as problem:
        return f"network namespaces need root's rights: {problem}"
    _remove(probe)
    return None


@contextmanager
def network(count: int, mbit: float | None) -> Iterator[list[Node]]:
    """So many nodes, each behind a link of `mbit` Mbit/s in each direction; None leaves the links as fast as they are.

    A node's outgoing link alone is shaped: in a ring, where each sends to one other, that is its neighbour's incoming
    one. At the end whatever still runs in the nodes is killed, and they are removed, also after an error.

    Raises:
        OSError: a tool is missing or refuses; the message has its own words.
    """
    remove_leftovers()
    process = os.getpid()
    switch = NAME.format(process=process, node="switch")
    nodes = [Node(NAME.format(process=process, node=number), f"10.77.0.{number + 1}") for number in range(count)]
    try:
        _run("ip", "netns", "add", switch)
        _run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "bridge", "up")
        for number, node in enumerate(nodes):
            _connect(node, switch, f"port{number}", mbit)
        yield nodes
    finally:
        for name in (*(node.name for node in nodes), switch):
            _remove(name)


def _connect(node: Node, switch: str, port: str, mbit: float | None) -> None:
    """Make a node, a cable from its interface to a port of the switch, and its link."""
    _run("ip", "netns", "add", node.name)
    cable = ("type", "veth", "peer", "name", port, "netns", switch)
    _run("ip", "link", "add", INTERFACE, "netns", node.name, *cable)
    _run("ip", "-n", switch, "link", "set", port, "master", "bridge", "up")
    _run("ip", "-n", node.name, "address", "add", f"{node.address}/24", "dev", INTERFACE)
    for interface in ("lo", INTERFACE):
        _run("ip", "-n", node.name, "link", "set", interface, "up")
    if mbit is not None:
        burst = f"{max(round(mbit * 1e6 / 8 * BURST), 4096)}"
        bucket = ("tbf", "rate", f"{mbit}mbit", "burst", burst, "latency", LATENCY)
        _run("tc", "-n", node.name, "qdisc", "add", "dev", INTERFACE, "root", *bucket)


def remove_leftovers() -> None:
    """Remove the nodes of processes that were killed before they could do it themselves."""
    for line in _run("ip", "netns", "list").splitlines():
        prefix, _, rest = line.partition("-")
        process, dash, _ = rest.partition("-")
        if prefix == "ttq" and dash and process.isdecimal() and not Path(f"/proc/{process}").exists():
            _remove(line.split()[0])


def sent_bytes(interface: str) -> int:
    """How many bytes have left an interface of this process's own network, with all headers.

    Raises:
        OSError: there is no such interface.
    """
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == interface:
            return int(numbers.split()[8])
    raise OSError(f"there is no network interface {interface!r}")


def _remove(name: str) -> None:
    """Kill what runs in a namespace, which only holds what was started there, and remove it; it may not be there."""
    with suppress(OSError):
        for process in _run("ip", "netns", "pids", name).split():
            with suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        _run("ip", "netns", "delete", name)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
