#!/usr/bin/env bash
# Make an environment with clients of OpenAI's protocol, and print its python.
#
#   .ci/clients.sh [DIR]      default: build/clients
#
# It shares nothing with the main environment (VENV, default .venv), whose pip fills it. OpenAI's
# newest client lies beside the others, in DIR/newest, since some of them hold it back. Exit code 1,
# and one line that says why, where the registry does not give them.
set -euo pipefail
cd "$(dirname "$0")/.."

main=${VENV:-.venv}
folder=${1:-build/clients}
# Files compile when they are first imported: most never are.
options=(--quiet --disable-pip-version-check --no-compile --no-deps --only-binary :all: --require-hashes)

if [ ! -f "$folder/.installed" ] || [ "$folder/.installed" -ot locks/clients.lock ]; then
  rm -rf "$folder"
  "$main/bin/python" -m venv --without-pip "$folder" >&2
  pip=("$main/bin/python" -m pip --python "$folder/bin/python" install "${options[@]}")
  if ! timeout 300 "${pip[@]}" -r locks/clients.lock >&2 ||
    ! timeout 100 "${pip[@]}" --target "$folder/newest" -r locks/clients-newest.lock >&2; then
    echo "The clients could not be installed from the package registry; their tests are skipped." >&2
    exit 1
  fi
  touch "$folder/.installed"
fi
echo "$folder/bin/python"
