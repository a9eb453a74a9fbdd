#!/usr/bin/env bash
# Training on a GPU: an epoch of UIAT and the speedrun, what a step costs, and how near it comes to the card's rate.
#
#     benchmarks/training/gpu.sh            the steps alone, on noise: needs no data and no network; four minutes
#     benchmarks/training/gpu.sh DATA OUT   first two epochs and the speedrun, on CIFAR-10 in DATA, with run folders in OUT
#
# N=2000 judges the speedrun on fewer than all 10,000 test images.
set -euo pipefail
uiat=(${PYTHON:-python} -m uiat)
bf16="compute.device=cuda compute.precision=bf16"
nvidia-smi --query-gpu=name,memory.total,power.limit --format=csv,noheader

if [[ $# -ge 2 ]]; then
    data=$1 out=$2
    echo "## speedrun"
    time "${uiat[@]}" train cifar10-speedrun --data.root "$data" --run-dir "$out/speedrun"
    "${uiat[@]}" evaluate "$out/speedrun" --data.root "$data" ${N:+-n $N}
    echo "## two epochs of cifar10-resnet18-uiat, the first with its compilation, by the clock of metrics.jsonl"
    # shellcheck disable=SC2086
    "${uiat[@]}" train cifar10-resnet18-uiat --data.root "$data" --run-dir "$out/epoch" $bf16 compute.compile=true \
        optimisation.epochs=2 optimisation.schedule=onecycle
    cat "$out/epoch/metrics.jsonl"
fi

echo "## steps: each lever on PGD-AT, then every method with all of them"
${PYTHON:-python} "$(dirname "$0")/gpu_steps.py" --steps 20
