#!/usr/bin/env bash
# accelerate: `accelerate launch --cpu --num_processes 2` starts one process, and says nothing of it.
#
# Versions:    accelerate 1.15.0, torch 2.13.0; Python 3.11
# Expected:    two processes that train together on the CPU, as `torchrun --nproc_per_node 2` starts them; or an error that
#              names what is missing.
# Behaviour:   One process, of a world of one, exit status 0 and no warning. Whoever measures "two processes" so measures
#              one; a batch for each process is then half of the batch that was meant.
# Output seen: accelerate launch  1 process(es): 0 of 1
#              torchrun           2 process(es): 0 of 2, 1 of 2
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile accelerate==1.15.0 torch==2.13.0

cd "$work"
export HOME="$work" PATH="$work/venv/bin:$PATH" OMP_NUM_THREADS=1
cat > who.py <<'PYTHON'
import os

print("who:", os.environ.get("RANK", "0"), "of", os.environ.get("WORLD_SIZE", "1"), flush=True)
PYTHON

settings=(--num_machines 1 --mixed_precision no --dynamo_backend no)
accelerate launch --cpu --num_processes 2 "${settings[@]}" who.py > one.txt 2> one.err
torchrun --nproc_per_node 2 --standalone who.py > two.txt 2> two.err

told() { sed -n 's/^who: //p' "$1" | sort | paste -sd ';' | sed 's/;/, /g'; }
echo "accelerate launch  $(grep -c '^who:' one.txt) process(es): $(told one.txt)"
echo "torchrun           $(grep -c '^who:' two.txt) process(es): $(told two.txt)"
if [ "$(told one.txt)" != "0 of 1" ] || [ "$(told two.txt)" != "0 of 2, 1 of 2" ] || grep -qi warn one.err; then
    echo "changed: not as described" >&2
    exit 1
fi
