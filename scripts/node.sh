#!/usr/bin/env bash
# node.sh: Node.js with npm, unmodified gun.js in node_modules, and a copy of it for examples/todo.
# Quiet and idempotent; the second call only looks at files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v node >/dev/null || bash scripts/apt.sh nodejs npm

stamp=node_modules/.complete
if [ ! -e "$stamp" ] || [ package-lock.json -nt "$stamp" ]; then
  node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' || {
    echo "Node.js 18 or newer is needed; here is $(node --version)." >&2
    exit 1
  }
  # Distributions that are not Debian's own often ship npm inside nodejs, so it is asked for on its own.
  command -v npm >/dev/null || bash scripts/apt.sh npm
  npm ci --no-audit --no-fund --loglevel=error >/dev/null
  rm -f examples/todo/vendor/gun.js
  touch "$stamp"
fi
if [ ! -e examples/todo/vendor/gun.js ]; then
  mkdir -p examples/todo/vendor
  cp node_modules/gun/gun.js examples/todo/vendor/gun.js
fi
