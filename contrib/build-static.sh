#!/usr/bin/env bash
# Builds `rejoinder` as one static file, which needs nothing of the machine that it runs on:
#
#   contrib/build-static.sh [FILE]     default: target/rejoinder-static
set -euo pipefail
cd "$(dirname "$0")/.."
file=${1:-target/rejoinder-static}

machine=$(uname -m)
target=${TARGET-$machine-unknown-linux-musl}
rustup target list --installed | grep -qx "$target" || rustup target add "$target"
cargo build --locked --release --target "$target" --package rejoinder-tools
built=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/$target/release/rejoinder
mkdir -p "$(dirname "$file")"
cp "$built" "$file"

# A file that names an interpreter is not static.
if LC_ALL=C grep -aq '/ld-linux\|/ld-musl' "$file"; then
    echo "$file needs a dynamic loader" >&2
    exit 1
fi
echo "$file"
