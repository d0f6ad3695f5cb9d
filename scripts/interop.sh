#!/usr/bin/env bash
# interop.sh [js] [py] [go] [rust] | all: the other sides of the libp2p interop matrix, built if they are missing.
# Quiet and idempotent. What is built lies outside the tree, named by a hash of its sources; tests/interop/libp2p/peers.py
# computes the same names.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
sources=$root/tests/interop/libp2p
products=${XDG_CACHE_HOME:-$HOME/.cache}/air-interop
[ "$#" -gt 0 ] || set -- js py
[ "$1" != all ] || set -- js py go rust

product() { # NAME FILE...: the folder of a product
  local name=$1
  shift
  (cd "$sources" && cat "$@" | sha256sum) | sed -E "s|^(.{16}).*|$products/$name-\1|"
}

log=$(mktemp)
scratch=$(mktemp -d)
trap 'rm -rf "$log" "$scratch"' EXIT
quietly() { # shows what a command said only if it fails
  "$@" >"$log" 2>&1 || { cat "$log" >&2; return 1; }
}

js() {
  bash scripts/node.sh
  node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || node_
}

node_() { # js-libp2p needs Node.js 20; Debian 12 has 18. The npm registry carries Node.js itself for Linux.
  local made
  made=$(product node node/package.json node/package-lock.json)
  [ ! -e "$made/.complete" ] || return 0
  rm -rf "$made"
  mkdir -p "$made"
  cp "$sources"/node/package*.json "$made/"
  (cd "$made" && quietly npm ci --no-audit --no-fund --loglevel=error)
  "$made"/node_modules/node-linux-*/bin/node --version >/dev/null 2>&1 || {
    echo "js-libp2p needs Node.js 20 or newer; here is $(node --version), and none to fetch for this machine." >&2
    exit 1
  }
  touch "$made/.complete"
}

py() {
  local made python=${PYTHON:-python3}
  made=$(product py requirements.txt)
  # An environment knows its own path, so it is not made elsewhere and moved; a stamp says that it is complete.
  [ ! -x "$made/bin/python" ] || [ ! -e "$made/.complete" ] || return 0
  rm -rf "$made"
  "$python" -c 'import ensurepip' 2>/dev/null ||
    bash scripts/apt.sh "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
  quietly "$python" -m venv "$made"
  pip() { "$made/bin/pip" install --disable-pip-version-check -r "$sources/requirements.txt"; }
  if ! pip >"$log" 2>&1; then
    # One of its dependencies has no wheel for every Python and is compiled then.
    bash scripts/apt.sh gcc libgmp-dev python3-dev
    quietly pip || exit 1
  fi
  touch "$made/.complete"
}

go_() {
  local made
  made=$(product go go/go.mod go/main.go go/kad.go)
  [ ! -x "$made/peer" ] || return 0
  command -v go >/dev/null || { echo "Go is not installed; the go peer needs 1.26 or newer." >&2; exit 1; }
  cp -r "$sources/go" "$scratch/go"
  (cd "$scratch/go" && quietly nice -n 19 go build -mod=mod -trimpath -o peer .)
  mkdir -p "$made"
  mv "$scratch/go/peer" "$made/peer"
}

rust() {
  local made
  made=$(product rust rust/Cargo.toml rust/src/main.rs rust/src/kad.rs rust/src/serve.rs)
  [ ! -x "$made/peer" ] || return 0
  command -v cargo >/dev/null || { echo "Cargo is not installed; the rust peer needs Rust 1.88 or newer." >&2; exit 1; }
  # The folder of the build stays, with the lock that Cargo makes: a change of our few lines builds in seconds.
  mkdir -p "$products/rust-build" "$made"
  cp -r "$sources/rust/." "$products/rust-build/"
  (cd "$products/rust-build" && CARGO_TARGET_DIR=target quietly nice -n 19 cargo build --release --quiet)
  cp "$products/rust-build/target/release/air-interop-peer" "$made/peer.new"
  mv "$made/peer.new" "$made/peer"
}

for peer in "$@"; do
  case $peer in
    js | py | rust) "$peer" ;;
    go) go_ ;;
    *) echo "interop.sh: $peer is none of js, py, go, rust" >&2; exit 2 ;;
  esac
done
