#!/usr/bin/env bash
# apt.sh PACKAGE...: install Debian packages when we may, else say what to install and fail.
# Silent unless it fails.
set -euo pipefail

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "Missing here: $*. Install with: sudo apt-get install $*" >&2
  exit 1
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"; } >"$log" 2>&1 || {
  cat "$log" >&2
  exit 1
}
