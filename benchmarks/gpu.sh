#!/usr/bin/env bash
# Training on a GPU: what a step costs and how near it comes to the card's rate, an epoch of UIAT, and the speedrun.
#
#     benchmarks/gpu.sh            the steps alone, on noise: needs no data and no network
#     benchmarks/gpu.sh DATA OUT   an epoch and the speedrun too, on CIFAR-10 in DATA, with run folders in OUT
set -euo pipefail
uiat=(${PYTHON:-python} -m uiat)
nvidia-smi --query-gpu=name,memory.total,power.limit --format=csv,noheader
bf16="compute.device=cuda compute.precision=bf16"

cost() { # RECIPE LEVERS
    # shellcheck disable=SC2086 -- the levers are several words
    "${uiat[@]}" cost $1 $2 --steps 20
}

echo "## PGD-AT: plain; bf16 channels-last; the same recorded as a CUDA graph"
cost cifar10-resnet18-pgd-at "compute.device=cuda compute.plain=true"
cost cifar10-resnet18-pgd-at "$bf16 compute.compile=false compute.cuda_graphs=false"
cost cifar10-resnet18-pgd-at "$bf16 compute.compile=false"
echo "## every lever: compiled too"
for recipe in cifar10-resnet18-{pgd-at,trades,uiat,uiat-one-off} cifar10-speedrun; do
    cost "$recipe" "$bf16 compute.compile=true"
done

[[ $# -lt 2 ]] && exit 0
data=$1 out=$2
echo "## two epochs of cifar10-resnet18-uiat, the first with its compilation, by the clock of metrics.jsonl"
"${uiat[@]}" train cifar10-resnet18-uiat --data.root "$data" --run-dir "$out/epoch" $bf16 compute.compile=true \
    optimisation.epochs=2 optimisation.schedule=onecycle
cat "$out/epoch/metrics.jsonl"
echo "## speedrun"
time "${uiat[@]}" train cifar10-speedrun --data.root "$data" --run-dir "$out/speedrun"
"${uiat[@]}" evaluate "$out/speedrun" --data.root "$data" ${N:+-n $N}
