#!/usr/bin/env bash
# browser.sh: what the whole suite needs beside Python: Node.js with gun.js, and Chromium.
# Quiet and idempotent.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# All that is missing is named at once: who may not install it should have to ask only one time.
missing=()
command -v node >/dev/null || missing+=(nodejs npm)
# The font is only a recommendation of the browser's package, but without one a page has no letters.
command -v chromium chromium-browser google-chrome >/dev/null || missing+=(chromium fonts-liberation)
[ "${#missing[@]}" = 0 ] || bash scripts/apt.sh "${missing[@]}"

bash scripts/node.sh
