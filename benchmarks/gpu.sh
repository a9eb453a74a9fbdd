#!/usr/bin/env bash
# Training on a GPU: what a step costs and how near it comes to the card's rate, an epoch of UIAT, and the speedrun.
#
#     benchmarks/gpu.sh            the steps alone, on noise: needs no data and no network
#     benchmarks/gpu.sh DATA OUT   an epoch and the speedrun too, on CIFAR-10 in DATA, with run folders in OUT
set -euo pipefail
uiat=(${PYTHON:-python} -m uiat)
nvidia-smi --query-gpu=name,memory.total,power.limit --format=csv,noheader

echo "## steps: fp32 eager, bf16 eager, bf16 compiled"
for levers in "compute.precision=fp32 compute.channels_last=false" "compute.precision=bf16" "compute.precision=bf16 compute.compile=true"; do
    for method in pgd-at trades uiat uiat-one-off; do
        # shellcheck disable=SC2086 -- the levers are several words
        "${uiat[@]}" cost "cifar10-resnet18-$method" compute.device=cuda $levers --steps 20
    done
done
"${uiat[@]}" cost cifar10-speedrun compute.device=cuda --steps 20

[[ $# -lt 2 ]] && exit 0
data=$1 out=$2
echo "## an epoch of cifar10-resnet18-uiat, by the clock of its metrics.jsonl"
"${uiat[@]}" train cifar10-resnet18-uiat --data.root "$data" --run-dir "$out/epoch" optimisation.epochs=1 optimisation.schedule=onecycle compute.compile=true
tail -n 1 "$out/epoch/metrics.jsonl"
echo "## speedrun"
time "${uiat[@]}" train cifar10-speedrun --data.root "$data" --run-dir "$out/speedrun"
"${uiat[@]}" evaluate "$out/speedrun" --data.root "$data"
