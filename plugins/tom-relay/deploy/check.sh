#!/usr/bin/env bash
# Do what the Dockerfile does, without docker, in a clean directory; then see that the relay serves and stops.
set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
work=$(mktemp -d)
relay=
finish() {
    [ -z "$relay" ] || kill -KILL "$relay" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

# Exactly the files that the image gets: a file that it lacks is missed here too.
grep '^COPY ' "$root/plugins/tom-relay/Dockerfile" | grep -v -- --from | while read -r _ line; do
    read -ra words <<<"$line"
    target="$work${words[-1]}"
    unset 'words[-1]'
    mkdir -p "$(dirname "$target/x")"
    for word in "${words[@]}"; do
        if [ -d "$root/$word" ]; then cp -R "$root/$word/." "$target"; else cp "$root/$word" "$target"; fi
    done
done
sh "$work/src/plugins/tom-relay/deploy/install.sh" "$work/src" "$work/opt"

cd "$work"
TOM_CONNECT_RELAY_SERVER_STATS_FILE="$work/stats.sqlite" \
    "$work/opt/bin/tom-connect" relay --dev --json --listen 127.0.0.1:0 >"$work/out" &
relay=$!
for _ in $(seq 600); do
    grep -q '"serving"' "$work/out" && break
    kill -0 "$relay"
    sleep 0.1
done
"$work/opt/bin/python" - "$work/out" <<'PYTHON'
import json, sys, urllib.request
url = json.loads(open(sys.argv[1]).readline())["url"]
assert urllib.request.urlopen(url + "/healthz", timeout=5).status == 200, url
PYTHON
kill -TERM "$relay"
code=0
wait "$relay" || code=$?
relay=
[ "$code" = 130 ] || { echo "the relay ended with $code, not 130" >&2; exit 1; }
[ -s "$work/stats.sqlite" ] || { echo "no statistics were kept" >&2; exit 1; }
echo "the image's steps work: the relay serves, and stops when it is told to"
