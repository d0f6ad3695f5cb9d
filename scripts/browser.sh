#!/usr/bin/env bash
# browser.sh: what the whole suite needs beside Python: Node.js with gun.js, and Chromium.
# Quiet and idempotent.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/node.sh

for name in chromium chromium-browser google-chrome; do
  if command -v "$name" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  # The font is only a recommendation of the package, but without one a page has no letters.
  {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-liberation
  } >/dev/null
else
  echo "Chromium is missing. Install it with: sudo apt-get install chromium" >&2
  exit 1
fi
