#!/usr/bin/env bash
# venv.sh PYTHON DIR: a virtual environment with Air and its development tools, versions pinned by constraints.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$1 venv=$2

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "Air needs Python 3.11 or newer; '$python' is $("$python" --version 2>&1). Set PYTHON=…" >&2
  exit 1
}
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  # Debian keeps this part of Python in a package of its own.
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  bash scripts/apt.sh "python$version-venv"
fi
# Without pip it is the remains of a set-up that was cut short.
[ -x "$venv/bin/pip" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
