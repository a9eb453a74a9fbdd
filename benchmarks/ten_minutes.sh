#!/usr/bin/env bash
# The README's way from nothing to a robust model, an AutoAttack figure with its verdict, a row of LaTeX and a model
# card, in a new clone; prints the seconds of each step, and stops at the first that fails.
#
#   benchmarks/ten_minutes.sh FOLDER        # FOLDER must not exist; PIP_ARGS goes to pip, as for `make train`
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
folder=$(realpath -m "${1:?name a folder for the clone}")

step() {
    local name=$1 begin=$SECONDS
    shift
    "$@" >"$folder.log" 2>&1 || { tail -20 "$folder.log"; echo "failed: $name"; exit 1; }
    printf '%4d s  %s\n' $((SECONDS - begin)) "$name"
}

[ ! -e "$folder" ] || { echo "$folder exists" >&2; exit 1; }
step "git clone" git clone --quiet "$here" "$folder"
cd "$folder"
step "make train: install, train digits-uiat, evaluate" make train RUN=runs/digits-uiat
# shellcheck disable=SC1091
source .venv/bin/activate
step "uiat evaluate --attacks autoattack" uiat evaluate runs/digits-uiat --attacks autoattack
grep -E 'autoattack|worst|verdict' "$folder.log"
step "uiat report --table latex" uiat report runs/digits-uiat --table latex
grep '&' "$folder.log"
step "pip install the extra export" python -m pip install ${PIP_ARGS:-} -e '.[export]'
step "uiat export --to hf" uiat export runs/digits-uiat --to hf
tail -3 "$folder.log"
printf '%4d s  in all\n' "$SECONDS"
