#!/bin/bash
# run.sh starts a Castellan of its own and drives unmodified Azure clients against it.
#
#   run.sh [SUITE...]     LANES of them at once (default: 2); suites: go az policy resources credentials aml jobs mlflow node browser pim access federation ad scim why management providers sinks deployments encryption stores v1 azurite lake acme pkcs11 (default: all)
#
# Nothing but the environment that `castellan setup clients --env` prints tells the
# clients where the cloud is. Every check is a line, `ok ...` or `FAIL ...`; the last
# line of a run is `N passed, M failed`. KEEP=1 keeps the data folder and the server's log.
set -u

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
suites=${*:-go az policy resources credentials aml jobs mlflow node browser pim access federation ad scim why management providers sinks deployments encryption stores v1 azurite lake acme pkcs11}
cache=$("$here/install.sh") || exit 1

# All of them are two runs side by side: the suites that want a server to themselves,
# one after another, and the others, each run with a server of its own.
if [ $# = 0 ]; then
	alone="go policy resources deployments access management"
	CLIENTS_LOCK=$(mktemp) && export CLIENTS_LOCK
	bash "$0" $alone &
	first=$!
	bash "$0" $(for s in $suites; do [[ " $alone " = *" $s "* ]] || echo "$s"; done)
	code=$?
	wait "$first" || code=1
	rm -f "$CLIENTS_LOCK"
	exit $code
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/castellan-clients.XXXXXX")
server= receivers= sinks=()
finish() {
	if [ -n "$server" ]; then
		kill "$server" 2>/dev/null
		wait "$server" 2>/dev/null
	fi
	if [ -n "$receivers" ]; then
		kill "$receivers" 2>/dev/null
		wait "$receivers" 2>/dev/null
	fi
	[ -n "${KEEP:-}" ] || rm -rf "$work"
}
trap finish EXIT

say() { echo "clients: $*" >&2; }

say "building"
go build -o "$work/castellan" ./cmd/castellan || exit 1
case " $suites " in *" go "*) (cd "$here/go" && go build -o "$work/go-clients" .) || exit 1 ;; esac

case " $suites " in *" pkcs11 "*) go test -c -o "$work/pkcs11-test" ./cmd/castellan || exit 1 ;; esac

# Azurite is no client, so it goes with the run. It is installed before the
# environment leads to the server alone.
case " $suites " in *" azurite "*)
	mkdir "$work/azurite" && cp "$here/azurite/"*.json "$work/azurite" &&
		(cd "$work/azurite" && npm ci --ignore-scripts --omit=optional --no-audit --no-fund --prefer-offline --loglevel=error >&2) || exit 1
	;;
esac

# Tokens of another issuer, as a cluster's, whose keys the server is told.
"$cache/aml/bin/python" "$here/python/federation.py" "$work/federation.json" "$work/issuers.json" || exit 1

# Receivers of logs, which the server is told of too.
case " $suites " in *" sinks "*)
	(cd "$here/collector" && go build -o "$work/collector" .) || exit 1
	mkdir "$work/sinks"
	"$cache/aml/bin/python" "$here/python/receivers.py" "$work/sinks" "$work/collector" &
	receivers=$!
	until [ -s "$work/sinks/sinks.json" ]; do
		kill -0 "$receivers" 2>/dev/null || exit 1
		sleep 0.1
	done
	sinks=(--sinks "$work/sinks/sinks.json")
	export CASTELLAN_SINKS=$work/sinks
	;;
esac

"$work/castellan" up --data "$work/data" --listen 127.0.0.1:0 --issuers "$work/issuers.json" "${sinks[@]}" --json >"$work/ready" 2>"$work/server.log" &
server=$!
for _ in $(seq 300); do
	[ -s "$work/ready" ] && break
	kill -0 "$server" 2>/dev/null || break
	sleep 0.1
done
if ! head -n 1 "$work/ready" | grep -q '"ready":true'; then
	say "the server did not start"
	tail -n 20 "$work/server.log" >&2
	exit 1
fi

# The clients' environment: what the product says, and nothing left over from this
# machine that would contradict it.
unset SSL_CERT_DIR CURL_CA_BUNDLE HTTP_PROXY http_proxy ALL_PROXY all_proxy
unset AZURE_CLIENT_ID AZURE_CLIENT_SECRET MLFLOW_TRACKING_URI MLFLOW_TRACKING_TOKEN
eval "$("$work/castellan" setup clients --data "$work/data" --env)" || exit 1
export CASTELLAN_READY=$work/ready CASTELLAN_WORLD=$work/world.json CASTELLAN_AZ=$cache/az/bin/az CASTELLAN_PROGRAM=$work/castellan CASTELLAN_DATA=$work/data CASTELLAN_FEDERATION=$work/federation.json
export MLFLOW_DISABLE_TELEMETRY=true PYTHONDONTWRITEBYTECODE=1 TMPDIR=$work

# run NAME SECONDS COMMAND... runs a suite; one that is cut short has failed.
run() {
	local name=$1 limit=$2 start=$SECONDS
	shift 2
	timeout --kill-after=10 "$limit" "$@" >"$work/$name.out" 2>"$work/$name.err"
	local code=$?
	{
		flock 9 # its lines stay together
		grep -E '^(ok|FAIL|SKIP) ' "$work/$name.out" | tee -a "$work/results"
		if ! grep -q '^done ' "$work/$name.out"; then
			echo "FAIL $name: the suite was cut short (exit status $code): $(tail -n 3 "$work/$name.err" | tr '\n' ' ')" | tee -a "$work/results"
		fi
	} 9>>"${CLIENTS_LOCK:-$work/lock}"
	say "$name took $((SECONDS - start)) s"
}

# suite is run beside others: most of a suite's time is that of one client's start
# after another, which keeps one core busy.
lanes=${LANES:-2}
running=()
suite() {
	if [ "${#running[@]}" -ge "$lanes" ]; then
		local ended
		wait -n -p ended "${running[@]}"
		local left=() id
		for id in "${running[@]}"; do [ "$id" = "$ended" ] || left+=("$id"); done
		running=("${left[@]}")
	fi
	run "$@" &
	running+=("$!")
}

# alone runs what changes the tenant, the root or the subscription for all others.
alone() {
	[ "${#running[@]}" = 0 ] || wait "${running[@]}"
	running=()
	run "$@"
}

# The product says itself whether clients are set up; what it says must be so.
ready() { "$cache/aml/bin/python" -c "import json,sys; print(json.loads(open(sys.argv[1]).readline())['admin'][sys.argv[2]])" "$work/ready" "$1"; }
if PATH=$cache/az/bin:$PATH CASTELLAN_CLIENT_ID=$(ready clientId) CASTELLAN_CLIENT_SECRET=$(ready clientSecret) "$work/castellan" setup clients --data "$work/data" --check >"$work/check.out" 2>&1; then
	echo "ok setup: castellan setup clients --check finds nothing missing" | tee -a "$work/results"
else
	echo "FAIL setup: castellan setup clients --check: $(tail -n 2 "$work/check.out" | tr '\n' ' ')" | tee -a "$work/results"
fi

python=$cache/aml/bin/python
run world 120 "$python" "$here/python/world.py"
for s in $suites; do
	case $s in
	go) alone go 240 "$work/go-clients" ;;
	policy) alone policy 300 "$python" "$here/python/policy.py" ;;
	deployments) alone deployments 240 "$python" "$here/python/deployments.py" ;;
	resources) alone resources 300 "$python" "$here/python/resources.py" ;;
	credentials) suite credentials 120 "$python" "$here/python/credentials.py" ;;
	az) suite az 300 "$python" "$here/python/az.py" ;;
	aml) suite aml 300 "$python" "$here/python/aml.py" ;;
	jobs) suite jobs 180 "$python" "$here/python/jobs.py" ;;
	mlflow) suite mlflow 180 "$cache/mlflow/bin/python" "$here/python/mlflow_client.py" ;;
	federation) suite federation 120 "$python" "$here/python/elsewhere.py" "$cache/federation/node_modules" ;;
	pim) suite pim 240 "$python" "$here/python/pim.py" ;;
	access) alone access 180 "$python" "$here/python/access.py" ;;
	scim) suite scim 120 "$cache/scim/bin/python" "$here/python/scim.py" ;;
	why) suite why 240 "$python" "$here/python/why.py" ;;
	ad) suite ad 240 "$python" "$here/python/ad.py" ;;
	management) alone management 120 "$cache/management/bin/python" "$here/python/management.py" ;;
	providers) suite providers 120 "$cache/management/bin/python" "$here/python/providers.py" ;;
	azurite) suite azurite 180 "$python" "$here/python/azurite.py" "$work/azurite/node_modules" ;;
	encryption) suite encryption 120 "$python" "$here/python/encryption.py" ;;
	stores) suite stores 120 "$python" "$here/python/stores.py" ;;
	v1) suite v1 120 "$cache/core/bin/python" "$here/python/v1.py" ;;
	lake) suite lake 180 "$python" "$here/python/lake.py" ;;
	acme) suite acme 120 "$python" "$here/python/acme.py" "$cache/pebble" ;;
	pkcs11) suite pkcs11 120 bash -c 'cd cmd/castellan && CASTELLAN_PKCS11=must "$0" -test.run TestTokenHoldsTheRootKey -test.v | sed "s/^ *--- PASS: [^/]*\/\([^ ]*\) .*/ok pkcs11: \1/; s/^ *--- FAIL: \([^ ]*\) .*/FAIL pkcs11: \1/; /^ok/s/_/ /g"; echo "done pkcs11"' "$work/pkcs11-test" ;;
	sinks) suite sinks 120 "$python" "$here/python/sinks.py" ;;
	node) suite node 180 env NODE_PATH="$cache/node/node_modules" node "$here/node/clients.js" ;;
	browser) suite browser 75 env NODE_PATH="$cache/browser/node_modules" node "$here/browser/browser.js" ;;
	*)
		say "there is no suite $s"
		exit 2
		;;
	esac
done

[ "${#running[@]}" = 0 ] || wait "${running[@]}"
if ! kill -0 "$server" 2>/dev/null; then
	echo "FAIL server: it died: $(tail -n 3 "$work/server.log" | tr '\n' ' ')" | tee -a "$work/results"
	server=
fi
passed=$(grep -c '^ok ' "$work/results")
failed=$(grep -c '^FAIL ' "$work/results")
[ -n "${KEEP:-}" ] && say "kept $work"
skipped=$(grep -c '^SKIP ' "$work/results")
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
