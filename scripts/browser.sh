#!/usr/bin/env bash
# browser.sh: what the whole suite needs beside Python: Node.js with gun.js, and Chromium.
# Quiet and idempotent.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/node.sh

for name in chromium chromium-browser google-chrome; do
  if command -v "$name" >/dev/null; then exit 0; fi
done
# The font is only a recommendation of the browser's package, but without one a page has no letters.
bash scripts/apt.sh chromium fonts-liberation
