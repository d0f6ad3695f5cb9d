#!/usr/bin/env bash
# node.sh: Node.js with npm, unmodified gun.js in node_modules, and a copy of it for examples/todo.
# Quiet and idempotent; the second call only looks at files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

node_is_enough() {
  command -v node >/dev/null && node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)'
}

bring() { # bring PACKAGE... : by the system's package manager, when we may
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } >/dev/null
  else
    echo "Missing here: $*. Install with: sudo apt-get install $*" >&2
    exit 1
  fi
}

stamp=node_modules/.complete
if [ ! -e "$stamp" ] || [ package-lock.json -nt "$stamp" ]; then
  command -v node >/dev/null || bring nodejs npm
  node_is_enough || {
    echo "Node.js 18 or newer is needed; here is $(node --version)." >&2
    exit 1
  }
  # Distributions that are not Debian's own often ship npm inside nodejs, so it is asked for on its own.
  command -v npm >/dev/null || bring npm
  npm ci --no-audit --no-fund --loglevel=error >/dev/null
  mkdir -p examples/todo/vendor
  cp node_modules/gun/gun.js examples/todo/vendor/gun.js
  touch "$stamp"
fi
command -v node >/dev/null || bring nodejs
if [ ! -e examples/todo/vendor/gun.js ]; then
  mkdir -p examples/todo/vendor
  cp node_modules/gun/gun.js examples/todo/vendor/gun.js
fi
