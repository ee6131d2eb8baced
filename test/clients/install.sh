#!/bin/bash
# install.sh puts the clients that the suites drive into a cache beside the user's
# other caches, at exact versions, and does nothing for what is there already.
# It needs python3 (3.10 or newer) with venv, node with npm, go, and the three registries.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${CASTELLAN_CLIENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/castellan-clients}
mkdir -p "$cache"

say() { echo "clients: $*" >&2; }

# One install at a time: two would unpack over one another.
exec 9>"$cache/lock"
flock 9

# stale NAME FILE... holds unless NAME was installed from exactly these files.
stale() {
	want=$(cat "${@:2}" | sha256sum)
	[ "$(cat "$cache/$1/.installed" 2>/dev/null)" != "$want" ]
}

# python NAME installs python/NAME.txt into a virtual environment of its own:
# the clients' pinned requirements contradict one another.
python() {
	list=$here/python/$1.txt
	if ! stale "$1" "$list"; then
		say "$1 is there"
		return
	fi
	say "installing $1 from the Python registry"
	rm -rf "${cache:?}/$1"
	python3 -m venv "$cache/$1"
	# Older pips fail to resolve what a list pins.
	"$cache/$1/bin/python" -m pip install --quiet --disable-pip-version-check pip==25.3
	"$cache/$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$list"
	echo "$want" >"$cache/$1/.installed"
}

node_modules() {
	if ! stale node "$here/node/package.json" "$here/node/package-lock.json"; then
		say "node is there"
		return
	fi
	say "installing node from the npm registry"
	rm -rf "$cache/node"
	mkdir "$cache/node"
	cp "$here/node/package.json" "$here/node/package-lock.json" "$cache/node"
	(cd "$cache/node" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
	echo "$want" >"$cache/node/.installed"
}

go_modules() {
	say "fetching the Go modules"
	(cd "$here/go" && go mod download)
}

python az
python aml
python mlflow
node_modules
go_modules
echo "$cache"
