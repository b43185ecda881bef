#!/usr/bin/env bash
# Make an environment with Ray beside the main one, and print its python.
#
#   .ci/ray.sh [DIR]      default: build/ray
#
# It reads everything else from the main environment (VENV, default .venv), to which nothing is
# added. Exit code 1, and one line that says why, where the registry does not give Ray.
set -euo pipefail
cd "$(dirname "$0")/.."

main=${VENV:-.venv}
folder=${1:-build/ray}

if [ ! -f "$folder/.installed" ]; then
  rm -rf "$folder"
  "$main/bin/python" -m venv "$folder" >&2
  packages=$("$main/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  own=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  echo "import site; site.addsitedir('$packages')" > "$own/main.pth"
  if ! timeout 300 "$folder/bin/python" -m pip install --quiet --disable-pip-version-check \
    -c constraints.txt 'ray[data,serve]' >&2; then
    echo "Ray could not be installed from the package registry; tests that need it are skipped." >&2
    exit 1
  fi
  touch "$folder/.installed"
fi
echo "$folder/bin/python"
