#!/usr/bin/env bash
# A Ray cluster of three nodes on this machine, of processes alone: to try at home what runs on many machines elsewhere.
#   infra/local-cluster.sh [PYTHON]     in one terminal; Ctrl-C ends it
#   relabel run --address 127.0.0.1:6399 ...    in another one
# PORT: of the head, 6399 by default. CPUS: that each of the two workers offers, 1 by default; the head offers none, as
# in infra/kubernetes, so that no work runs beside the driver. GPUs are left out: two nodes would count the same one.
set -euo pipefail

python=${1:-python3}
ray="$(dirname "$(command -v "$python")")/ray"
port=${PORT:-6399} cpus=${CPUS:-1}
folder=$(mktemp -d /tmp/rXXXXXX) # short: sockets lie below it
nodes=() alive=()

finish() {
  trap - EXIT INT TERM
  for node in "${nodes[@]}"; do kill -TERM -- "-$node" 2>/dev/null || true; done
  wait || true
  rm -rf "$folder"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Each node leads a group of processes of its own, so that ending it ends all of them and nobody else's.
start() {
  setsid "$ray" start "$@" --block --num-gpus=0 --node-ip-address=127.0.0.1 --disable-usage-stats \
    >>"$folder/log" 2>&1 </dev/null &
  node=$!
  nodes+=("$node")
}

count() {
  "$python" - "127.0.0.1:$port" 2>/dev/null <<'END'
import sys
from ray._raylet import GcsClient
nodes = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=5)
print(sum(node.state == 0 for node in nodes.values()))
END
}

# One after the other, and more than once: Ray gives a node 30 seconds to come up, which is little on a busy machine.
up() {
  local wanted=$1
  shift
  for _ in 1 2 3 4 5; do
    start "$@"
    while kill -0 "$node" 2>/dev/null; do
      if [ "$(count)" = "$wanted" ]; then
        alive+=("$node")
        return
      fi
      sleep 1
    done
  done
  echo "node $wanted of 3 did not start: $(tail -n 1 "$folder/log")" >&2
  exit 1
}

export RAY_AUTH_MODE=${RAY_AUTH_MODE:-disabled}
unset RAY_ADDRESS
up 1 --head --port="$port" --num-cpus=0 --include-dashboard=false --temp-dir="$folder"
up 2 --address="127.0.0.1:$port" --num-cpus="$cpus"
up 3 --address="127.0.0.1:$port" --num-cpus="$cpus"
echo "three nodes; use them with: relabel run --address 127.0.0.1:$port ...   (Ctrl-C ends them)"

# As elsewhere, a worker may go and the others do its work; without the head there is no cluster.
head=${alive[0]}
while kill -0 "$head" 2>/dev/null; do
  wait -n "${alive[@]}" || true
  for i in "${!alive[@]}"; do
    if ! kill -0 "${alive[i]}" 2>/dev/null; then
      echo "node ${alive[i]} ended" >&2
      unset "alive[i]"
    fi
  done
done
echo "the head ended, and with it the cluster" >&2
exit 1
