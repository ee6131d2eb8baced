#!/bin/bash
# install.sh puts the clients that the suites drive into a cache beside the user's
# other caches, at exact versions, and does nothing for what is there already.
# It needs python3 (3.10 or newer) with venv, node with npm, go, and the three registries;
# the suites browser, federation, sinks and pkcs11 take chromium, slapd, rsyslog and softhsm2 from Debian's packages.
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

# node_modules NAME FOLDER installs the packages that FOLDER locks.
node_modules() {
	if ! stale "$1" "$2/package.json" "$2/package-lock.json"; then
		say "$1 is there"
		return
	fi
	say "installing $1 from the npm registry"
	rm -rf "${cache:?}/$1"
	mkdir "$cache/$1"
	cp "$2/package.json" "$2/package-lock.json" "$cache/$1"
	(cd "$cache/$1" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
	echo "$want" >"$cache/$1/.installed"
}

# debian PROGRAM SUITE PACKAGE... installs Debian's packages, which have PROGRAM,
# where that is possible; the suite that needs it says so where it isn't.
debian() {
	program=$1 suite=$2
	shift 2
	if command -v "$program" >/dev/null; then
		say "$program is there"
	elif [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		say "there is no $program, and only root can install it with apt-get: the suite $suite can't run"
	else
		say "installing $program from Debian's packages"
		# Nothing is started: the suites run servers of their own.
		apt-get update -qq >&2 && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >&2 ||
			say "$program can't be installed: the suite $suite can't run"
	fi
}

go_modules() {
	say "fetching the Go modules"
	(cd "$here/go" && go mod download)
	(cd "$here/collector" && go mod download)
}

# programs NAME MODULE PROGRAM... builds programs of a Go module at the version that NAME.txt says.
programs() {
	if ! stale "$1" "$here/$1.txt"; then
		say "$1 is there"
		return
	fi
	say "building $1 from the Go proxy"
	mkdir -p "$cache/$1"
	for program in "${@:3}"; do GOBIN=$cache/$1 go install "$2/$program@$(cat "$here/$1.txt")"; done
	echo "$want" >"$cache/$1/.installed"
}

python az
python aml
python mlflow
python scim
python management
python core
node_modules node "$here/node"
node_modules browser "$here/browser"
node_modules federation "$here/federation"
go_modules
programs pebble github.com/letsencrypt/pebble/v2/cmd pebble pebble-challtestsrv
debian chromium browser chromium
PATH=$PATH:/usr/sbin debian slapd federation slapd ldap-utils
PATH=$PATH:/usr/sbin debian rsyslogd sinks rsyslog rsyslog-gnutls
PATH=$PATH:/usr/sbin debian softhsm2-util pkcs11 softhsm2
# The tests of the program itself run these; they say so where they can't.
PATH=$PATH:/usr/sbin debian mkfs.btrfs none btrfs-progs
debian samba-tool none samba samba-ad-provision samba-dsdb-modules samba-vfs-modules python3-samba winbind
echo "$cache"
