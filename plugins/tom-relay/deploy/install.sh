#!/bin/sh
# Install the relay from its source into a directory of its own: install.sh SOURCE TARGET
# The image is built by this, and deploy/check.sh runs it where there is no docker.
set -eu
source=$1
target=$2

python3 -m venv "$target"
"$target/bin/pip" install --no-cache-dir --quiet "$source" "$source/plugins/tom-relay"
"$target/bin/tom-connect" relay --help >/dev/null
