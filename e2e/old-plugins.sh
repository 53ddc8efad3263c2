#!/usr/bin/env bash
# old-plugins.sh FOLDER: builds plugins of an early version into FOLDER: the framework meta (Rust), and the
# templates of that version in Python and JavaScript. Does nothing if they are there, and only says so
# if this clone cannot get that version.
set -euo pipefail
folder=${1:?usage: old-plugins.sh FOLDER}
commit=0505bb7088712edebd62b7c14076da47136532da
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
[ "$(cat "$folder/made-of" 2>/dev/null)" != "$commit" ] || exit 0

cd "$root"
if ! git cat-file -e "$commit^{commit}" 2>/dev/null \
    && ! git fetch --quiet --depth 1 origin "$commit" 2>/dev/null; then
    echo "==> skipping the plugins of an early version: this clone does not have the commit $commit"
    exit 0
fi
echo "==> building plugins of an early version (a minute, kept in $folder)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git archive "$commit" | tar --extract --directory "$work"

export CARGO_TARGET_DIR=$folder/build
(cd "$work" && cargo build --quiet --profile plugin --locked --target wasm32-unknown-unknown -p meta)
cp "$folder/build/wasm32-unknown-unknown/plugin/meta.wasm" "$folder/meta.wasm"
rm -rf "$folder/build"

# template LANGUAGE: a folder with the template, as an author's.
template() {
    mkdir "$work/$1"
    cp -r "$work/host/templates/$1/." "$work/$1"
    mkdir "$work/$1/wit"
    cp "$work/wit/trainer.wit" "$work/$1/wit/"
    sed -i "s/{{name}}/old-$1/g" "$work/$1"/app.* "$work/$1"/package.json 2>/dev/null || true
    cd "$work/$1"
}

(
    template python
    "${PYTHON:-python3}" -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
    .venv/bin/componentize-py --quiet --wit-path wit --world plugin componentize app --stub-wasi \
        -o "$folder/old-python.wasm"
)
if command -v npm >/dev/null; then (
    template javascript
    npm install --no-audit --no-fund --loglevel=error >/dev/null
    node_modules/.bin/jco componentize app.js --wit wit --world-name plugin --backend qjs \
        --backend-qjs-stub-wasi --backend-qjs-disable-async -o "$folder/old-javascript.wasm" >/dev/null
); fi
echo "$commit" >"$folder/made-of"
