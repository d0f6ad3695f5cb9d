#!/usr/bin/env bash
# A Python for fuzzing: what .venv holds, and atheris. It stands outside of the project, so that .venv stays
# what constraints.txt says. Prints the path of that Python; of .venv's own where atheris cannot be had.
# Usage: scripts/fuzz.sh VENV
set -euo pipefail
venv=$(realpath "$1")
wanted='atheris>=2.3,<4'
# One for each place the project is in, because it points back there.
place=${XDG_CACHE_HOME:-$HOME/.cache}/air/fuzz-$(echo "$venv" | cksum | cut -d ' ' -f 1)

if ! "$place/bin/python" -c 'import atheris, orjson' 2>/dev/null; then
  rm -rf "$place"
  "$venv/bin/python" -m venv "$place" >&2
  "$place/bin/python" -m pip install --quiet --disable-pip-version-check "$wanted" >&2 || true
  site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  # addsitedir, and not only the path, so that an editable install is found too.
  echo "import site; site.addsitedir('$site')" >"$("$place/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/air.pth"
fi
if "$place/bin/python" -c 'import atheris' 2>/dev/null; then
  echo "$place/bin/python"
else
  echo "no atheris here: Hypothesis makes the bytes" >&2
  echo "$venv/bin/python"
fi
