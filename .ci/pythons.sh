#!/usr/bin/env bash
# Install the wheel of dist/ with the extra `serve` under each Python from 3.11 to 3.14 that this
# machine has, and let it make a database of users. Prints one line for each; those that are not
# here are said to be missing, and are no failure.
set -euo pipefail
cd "$(dirname "$0")/.."

wheel=$(ls "$PWD"/dist/palate-*.whl | tail -n 1)

python_of() { # an interpreter of this version that runs, else nothing
  local one
  for one in "python$1" "$HOME/.pyenv/versions/$1".*/bin/python; do
    if "$one" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
      echo "$one"
      return
    fi
  done
}

for version in 3.11 3.12 3.13 3.14; do
  python=$(python_of "$version")
  if [ -z "$python" ]; then
    echo "Python $version is not on this machine."
    continue
  fi
  folder=build/pythons/$version
  rm -rf "$folder"
  "$python" -m venv "$folder"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
    -c constraints.txt "$wheel[serve]"
  "$folder/bin/palate" keys issue --database "$folder/users.db" > "$folder/key.txt"
  "$folder/bin/palate" keys list --database "$folder/users.db" > /dev/null
  echo "Python $version: $("$folder/bin/palate" --version) with the extra serve makes a database of users."
done
