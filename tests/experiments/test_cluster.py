"""experiments/cluster.py: shaped links between namespaces, what a step on them is predicted to be, and rows of both."""

import argparse
import os
import subprocess
import sys

import cluster
import namespaces
import processes
import pytest
import replica
import results

import ttqlib as ttq

WHY_NOT = namespaces.missing()
needs_nodes = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")
SMALL = ["--hidden", "64", "--batch-size", "4", "--steps", "1"]
STEP = {"forward": 0.25, "backward": 0.5, "update": 0.25, "together": 2.0, "sent": 1e6}


def listed() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout


# ------------------------------------------------------------------------------------------------- what is predicted


def test_what_is_sent_while_the_backward_pass_goes_on_costs_nothing():
    bucket = cluster.LATER
    assert cluster.predicted_seconds(STEP, 10 * bucket, 0) == pytest.approx(1)
    assert cluster.predicted_seconds(STEP, cluster.FIRST, 3) == pytest.approx(4)  # one bucket: first all, then sent
    quick, slow = (cluster.predicted_seconds(STEP, 10 * bucket, seconds) for seconds in (0.4, 40))
    assert 1 < quick < 1.1  # the last bucket is sent when all is computed
    assert 40.5 < slow < 40.6  # the link is never idle after the first bucket: a hundredth of the backward pass


def test_a_row_has_what_was_measured_and_how_far_off_the_prediction_was():
    found = cluster.metrics([STEP], rows=32, gradient_bytes=cluster.FIRST, payload=10**6, mbit=8.0)
    assert (found["samples_per_second"], found["alone_ms"], found["efficiency_percent"]) == (16, 1000, 50)
    wire = 10**6 * 1514 / 1448
    assert found["predicted_sent_bytes"] == wire and found["sent_error_percent"] == pytest.approx(
        100 * (wire / 1e6 - 1)
    )
    assert found["predicted_step_ms"] == pytest.approx(1000 + wire / 1000)  # 8 Mbit/s are a byte a microsecond
    assert found["step_error_percent"] == pytest.approx(100 * (found["predicted_step_ms"] / 2000 - 1))
    assert "predicted_step_ms" not in cluster.metrics([STEP], 32, 10**6, None, 8.0)
    assert cluster.metrics([STEP], 32, 10**6, 10**6, 0.0)["predicted_step_ms"] == pytest.approx(1000)


def test_processes_share_a_step_evenly_or_not_at_all(monkeypatch):
    for count, accumulate, share in ((1, 1, 32), (4, 1, 8), (2, 4, 4)):
        monkeypatch.setattr(processes, "PROCESSES", count)
        made = processes.of_step(32, argparse.Namespace(accumulate=accumulate))
        assert made == {"per_device_train_batch_size": share, "gradient_accumulation_steps": accumulate}
    monkeypatch.setattr(processes, "PROCESSES", 3)
    with pytest.raises(ValueError, match="32 rows, which 3 processes with --accumulate 1 cannot share evenly"):
        processes.of_step(32, argparse.Namespace(accumulate=1))


@pytest.mark.parametrize("method", replica.METHODS)
def test_every_method_trains_a_batch_of_its_shape(method):
    model = replica.new_model("atis", method, 64)
    model(**replica.new_batch("atis", model, 3)).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("told", ["--nodes 1", "--links -1", "--steps 0", "--hidden 193", "--methods sparse"])
def test_what_cannot_be_measured_is_refused(told, capsys):
    with pytest.raises(SystemExit):
        cluster.parse(told.split())
    assert told.split()[0] in capsys.readouterr().err


def test_rows_are_written_once_and_a_machine_without_namespaces_is_told_why(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "missing", lambda: None)
    arguments = ["--runs", str(tmp_path), "--methods", "dense", "tt", "--links", "100", *SMALL]
    monkeypatch.setattr(cluster, "measured", lambda options, mbit: {name: [STEP] for name in options.methods})
    cluster.main(arguments)
    dense, trains = results.read(tmp_path / "results.json")
    assert (dense["method"], trains["method"], trains["rank"]) == ("dense", "tt", 12)
    assert trains["settings"] == {"hidden": 64, "tokens": 24, "batch_size": 4, "nodes": 2, "mbit": 100}
    model = replica.new_model("atis", "tt", 64)
    assert trains["metrics"]["gradient_bytes"]["mean"] == ttq.allreduce_bytes(model, 2) == ttq.parameter_bytes(model)
    assert dense["ratio"] == 1 < trains["ratio"]
    cluster.main(arguments)
    assert capsys.readouterr().out.endswith("100 Mbit/s: there already\n")
    monkeypatch.setattr(cluster, "missing", lambda: "network namespaces need root's rights")
    with pytest.raises(SystemExit):
        cluster.main([*arguments, "--force"])
    assert "need root's rights" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------- real links

SEND = """
import socket, sys, time
first, second, role = sys.argv[1:]
if role == "listen":
    server = socket.create_server((first, 5000)); print("ready", flush=True)
    peer, _ = server.accept(); count = 0
    while part := peer.recv(2**16): count += len(part)
    print(count)
else:
    began = time.perf_counter(); peer = socket.create_connection((first, 5000))
    peer.sendall(bytes(2_500_000)); peer.shutdown(socket.SHUT_WR); peer.recv(1)
    print(time.perf_counter() - began)
"""


@needs_nodes
def test_a_link_is_no_faster_than_it_is_told_to_be():
    with namespaces.network(2, mbit=100) as nodes:
        first, second = (one.command(sys.executable, "-c", SEND, *(n.address for n in nodes)) for one in nodes)
        with subprocess.Popen([*first, "listen"], stdout=subprocess.PIPE, text=True) as listener:
            assert listener.stdout.readline() == "ready\n"
            seconds = float(subprocess.run([*second, "send"], capture_output=True, text=True, check=True).stdout)
            assert int(listener.stdout.readline()) == 2_500_000
        said = subprocess.run(nodes[1].command("cat", "/proc/net/dev"), capture_output=True, text=True).stdout
    sent = int(said.split(f"{namespaces.INTERFACE}:")[1].split()[8])
    assert 0.99 < sent / (2_500_000 * cluster.FRAME / cluster.PAYLOAD) < 1.02  # options of a segment are optional
    assert seconds > 0.95 * 2_500_000 * 8 / 100e6  # a busy machine only makes it longer


@needs_nodes
def test_nothing_is_left_of_a_network(monkeypatch):
    with pytest.raises(RuntimeError), namespaces.network(2, None) as nodes:
        left = subprocess.Popen(nodes[0].command("sh", "-c", "echo here; sleep 600"), stdout=subprocess.PIPE)
        assert left.stdout.readline() == b"here\n"
        assert all(node.name in listed() for node in nodes)
        raise RuntimeError("an error inside")
    left.stdout.close()
    assert left.wait(60) and nodes[0].name not in listed()
    dead = subprocess.Popen(["true"])
    dead.wait()
    name = namespaces.NAME.format(process=dead.pid, node=0)
    subprocess.run(["ip", "netns", "add", name], check=True)
    namespaces.remove_leftovers()  # of a process that was killed
    assert name not in listed()
    monkeypatch.setattr(namespaces, "LATENCY", "for ever")
    with pytest.raises(OSError, match="tbf"), namespaces.network(1, mbit=100):
        pass
    assert f"ttq-{os.getpid()}-" not in listed()


@needs_nodes
def test_traffic_on_the_wire_is_what_was_predicted(tmp_path):
    cluster.main(["--runs", str(tmp_path), "--methods", "dense", "tt", "--links", "100", *SMALL])
    rows = results.read(tmp_path / "results.json")
    assert [row["method"] for row in rows] == ["dense", "tt"]
    for row in rows:
        assert abs(row["metrics"]["sent_error_percent"]["mean"]) < 10
        assert row["metrics"]["step_ms"]["mean"] > row["metrics"]["predicted_sent_bytes"]["mean"] * 8 / 100e3
    assert f"ttq-{os.getpid()}-" not in listed()
