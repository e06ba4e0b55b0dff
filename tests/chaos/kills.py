"""Kill runs, again and again, and compare what comes out with an undisturbed run, byte for byte.

    python -m tests.chaos.kills --kills 100 --seed 0 --folder /somewhere [--for-s 300]

Each round is one output, on local disk or on an S3 server behind a proxy that injects faults into 10 % of the requests.
It gets up to twelve kills: of the driver with its whole cluster ("machine"); or of the driver alone, of a model actor,
or of a node, on a cluster of three nodes that outlives the rounds. Nodes that were killed are replaced. In a round of
"sleep" the driver and its whole cluster are stopped instead, as when a lid closes; another run goes on, and they wake
beside it or after its end, two at most asleep at a time: then too they may end in one line, and change nothing.
A kill counts when it landed with work pending. Then the run goes on to its end, and its shards' hashes are compared.
A run that nobody killed has to end with 0; one that does not is started again, and stands in `gave_up`.
All is drawn from the seed. Finished rounds stand in FOLDER/rounds.jsonl, and the same command goes on after them; with
--for-s it begins no round after so many seconds, and ends with 3 while kills are missing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from pipeline.storage import Access, Store
from tests.chaos.runs import Corpus, cluster, hashes, make_corpus, parts, s3_server, start, upload
from tests.fault_proxy import FaultProxy

IMAGES, CHUNK_IMAGES = 48, 1
PER_ROUND = 12
PAUSE_S = {"machine": "0.5", "sleep": "0.5", "driver": "1", "actor": "2", "node": "2"}
"""For each mask: else parts come all at once when the first writer is up, and no kill lands."""
KINDS = ("machine", "sleep", *3 * ("driver", "actor", "node"))
"""Of the rounds, again and again; those that start a cluster for each kill take the longest. An odd number of them: so
each is on disk and on S3 in turn."""
OWN_CLUSTER = ("machine", "sleep")
MOST_ASLEEP = 2
FAULTS = ("500", "503", "429", "reset", "reset_after", "truncated", "slow")
LIMIT_S = 900.0


@dataclass
class Round:
    """One output and what is done to it. `kind` is the same for its kills."""

    number: int
    kind: str
    remote: bool
    kills: int
    landed: list[dict[str, Any]] = field(default_factory=list)
    gave_up: list[str] = field(default_factory=list)


def draw(seed: int, number: int, per_round: int) -> tuple[Round, random.Random]:
    chance = random.Random(f"{seed}/{number}")
    kills = chance.randint((per_round + 1) // 2, per_round)
    return Round(number, KINDS[number % len(KINDS)], number % 2 == 1, kills), chance


def play(
    round_: Round, chance: random.Random, corpus: Corpus, output: str, access: Access, direct: Access, nodes: Any
) -> None:
    """Run with kills, then to the end. direct: reaches the output without faults. nodes: None for the run's own."""
    options = ["--actors", "3", "--address", nodes.address] if nodes else ["--actors", "1"]
    options += ["--endpoint-url", access.endpoint_url] if access.endpoint_url else []
    command = corpus.command(output, *options)
    run, asleep = start(command, KILLER_PAUSE_S=PAUSE_S[round_.kind]), list[subprocess.Popen[bytes]]()
    while len(round_.landed) < round_.kills:
        before = parts(output, direct)
        most = (corpus.chunks - 1 - before) // (round_.kills - len(round_.landed))  # leave some for the others
        if most < 1 or not _wait(run, output, direct, before + chance.randint(1, most)):
            break
        time.sleep(chance.uniform(0, 0.3))
        victim = _kill(round_.kind, run, nodes)
        pending = corpus.chunks - parts(output, direct)
        if victim and pending > 0:
            round_.landed.append({"kind": round_.kind, "remote": round_.remote, "pending": pending})
        if round_.kind == "sleep":
            asleep.append(run)
        if round_.kind in (*OWN_CLUSTER, "driver"):
            run = start(command, KILLER_PAUSE_S=PAUSE_S[round_.kind])
        while len(asleep) > MOST_ASLEEP - chance.randint(0, 1):
            _wake(asleep.pop(0))
    _finish(run, command, round_.gave_up)
    for sleeper in asleep:
        _wake(sleeper)


def _wait(run: subprocess.Popen[bytes], output: str, access: Access, wanted: int) -> bool:
    """Until so many parts are there; False when the run ended first."""
    deadline = time.monotonic() + LIMIT_S
    while parts(output, access) < wanted:
        if run.poll() is not None:
            return False
        assert time.monotonic() < deadline, f"{wanted} parts did not come in {LIMIT_S:.0f} s"
        time.sleep(0.25)
    return run.poll() is None


def _kill(kind: str, run: subprocess.Popen[bytes], nodes: Any) -> bool:
    """SIGKILL, or SIGSTOP for "sleep", to a victim of this kind; whether there was one."""
    if kind == "sleep":
        os.killpg(run.pid, signal.SIGSTOP)
        return True
    if kind in ("machine", "driver"):
        os.killpg(run.pid, signal.SIGKILL)
        run.wait(60)
        return True
    if kind == "node":
        nodes.remove_node(_a_worker(nodes), allow_graceful=False)
        nodes.add_node(num_cpus=1)
        return True
    for process in psutil.Process().children(recursive=True):
        try:
            if "MapWorker" in " ".join(process.cmdline()):
                process.kill()
                return True
        except psutil.Error:
            continue
    return False


def _wake(sleeper: subprocess.Popen[bytes]) -> None:
    """Let a stopped run go on to its end, which is no traceback."""
    os.killpg(sleeper.pid, signal.SIGCONT)
    text = sleeper.communicate(timeout=LIMIT_S)[1].decode()
    assert sleeper.returncode in (0, 1), f"{sleeper.returncode}: {text[-2000:]}"
    assert "Traceback" not in text, text[-2000:]


def _a_worker(nodes: Any) -> Any:
    return sorted(nodes.worker_nodes, key=lambda node: str(node.unique_id))[0]


def _finish(run: subprocess.Popen[bytes], command: list[str], gave_up: list[str]) -> None:
    """To the end: the run that is under way, and the same command once more if it gives up."""
    text = run.communicate(timeout=LIMIT_S)[1].decode()
    if run.returncode:
        gave_up.append(f"{run.returncode}: {text[-2000:]}")
        run = start(command)
        text = run.communicate(timeout=LIMIT_S)[1].decode()
    assert run.returncode == 0, f"the run ended with {run.returncode}: {text[-2000:]}"


def kill(
    kills: int, seed: int, folder: Path, per_round: int = PER_ROUND, for_s: float = math.inf
) -> list[dict[str, Any]]:
    """Rounds until so many kills landed, those of an earlier call counted. One entry for each round."""
    folder.mkdir(parents=True, exist_ok=True)
    log, until = folder / "rounds.jsonl", time.monotonic() + for_s
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    local = make_corpus(folder / f"corpus-{time.time_ns()}", IMAGES, CHUNK_IMAGES)
    undisturbed = str(folder / "undisturbed")
    command = local.command(undisturbed, "--actors", "1", "--new-version")  # the code may be another by now
    _finish(start(command), command, [])
    expected = hashes(undisturbed, Access())
    with ExitStack() as stack:
        upstream = stack.enter_context(s3_server())
        proxy = stack.enter_context(FaultProxy(upstream, seed, share=0.1, kinds=FAULTS).running())
        nodes = None
        remote = upload(local, Store("s3://chaos/in", Access(upstream)))
        while _landed(done) < kills and time.monotonic() < until:
            round_, chance = draw(seed, number := len(done), per_round)
            access, direct = (Access(proxy.url), Access(upstream)) if round_.remote else (Access(), Access())
            output = f"s3://chaos/out-{number}" if round_.remote else str(folder / f"out-{time.time_ns()}")
            begun = time.monotonic()
            own = round_.kind in OWN_CLUSTER
            if not own:
                nodes = nodes or stack.enter_context(cluster(3))
            given = remote if round_.remote else local
            play(round_, chance, given, output, access, direct, None if own else nodes)
            entry = {**vars(round_), "same": hashes(output, direct) == expected, "s": round(time.monotonic() - begun)}
            done.append(entry)
            with log.open("a") as file:
                file.write(json.dumps(entry) + "\n")
            print(json.dumps(entry), flush=True)
    return done


def _landed(rounds: list[dict[str, Any]]) -> int:
    return sum(len(entry["landed"]) for entry in rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/relabel-kills"))
    parser.add_argument("--for-s", type=float, default=math.inf)
    given = parser.parse_args()
    rounds = kill(given.kills, given.seed, given.folder, for_s=given.for_s)
    landed, same = _landed(rounds), _landed([entry for entry in rounds if entry["same"]])
    gave_up = sum(len(entry["gave_up"]) for entry in rounds)
    print(f"{landed} kills landed in {len(rounds)} rounds; byte-identical afterwards: {same} of {landed}")
    print(f"runs that ended in an error of their own, and were started again: {gave_up}")
    sys.exit(1 if not all(entry["same"] for entry in rounds) else 3 if landed < given.kills else 0)


if __name__ == "__main__":
    main()
