#!/usr/bin/env bash
# The main job, end to end: real Kubernetes API server, emulated Microsoft Graph, the operator with the rights of the chart.
#
#   control-plane run -- tests/demo/demo.sh          shows it step by step and checks every claim
#   control-plane run -- tests/demo/demo.sh --stay   sets the same up and leaves it running until Ctrl-C
#
# Binaries come from BIN (target/debug). Everything else that this writes is in one temporary folder.
set -euo pipefail
cd "$(dirname "$0")/../.."

stay=no
case ${1:-} in
--stay) stay=yes ;;
'') ;;
*)
  echo "usage: $0 [--stay]" >&2
  exit 2
  ;;
esac

BIN=${BIN:-target/debug}
system=vpptoken-system # the operator's namespace
for tool in kubectl helm curl; do
  command -v "$tool" >/dev/null || {
    echo "$tool is not on PATH. Run this by make demo, which brings all but curl along." >&2
    exit 1
  }
done
for binary in vpptoken-operator graph-emulator; do
  [ -x "$BIN/$binary" ] || {
    echo "$BIN/$binary is missing. Run this by make demo, or build it and set BIN." >&2
    exit 1
  }
done

umask 077
work=$(mktemp -d "${TMPDIR:-/tmp}/vpptoken-demo.XXXXXX")
export KUBECACHEDIR=$work/kube-cache

contoso=8d3f5b9e-0c1d-4f6a-9b57-1f0c5f2f7c11  # as in examples/values.yaml
fabrikam=2c7e1a40-93d5-4b1e-8f6a-5d0b7e9c4a21 # as in examples/cluster-graph-tenant.yaml
school=b5e0d6f2-7a18-4c39-9d24-0f8a1c6e3b72   # as in examples/graph-tenant.yaml

# Two dates that lie ahead whenever this runs.
next_year=$(($(date -u +%Y) + 1))
soon=$next_year-06-01T12:00:00Z
later=$next_year-12-01T12:00:00Z

# --- saying, failing, ending --------------------------------------------------------------------------------------

number=0
pids=
outcome=failed

step() {
  number=$((number + 1))
  printf '\n=== %s. %s\n' "$number" "$*"
}

# Runs a command and shows it as a person would type it.
show() {
  printf '\n$ %s\n' "$*"
  "$@"
}

holds() {
  printf '  [held] %s\n' "$*"
}

fail() {
  printf '\nThe demo failed: %s\n' "$*" >&2
  exit 1
}

finish() {
  local code=$? pid tries
  set +e
  trap - EXIT
  trap '' INT TERM HUP
  for pid in $pids; do
    kill "$pid" 2>/dev/null || [ "$outcome" = interrupted ] ||
      printf '\nA process ended by itself: the operator or the emulator (%s).\n' "$pid" >&2
  done
  for pid in $pids; do
    tries=0
    while kill -0 "$pid" 2>/dev/null && [ "$tries" -lt 50 ]; do
      sleep 0.1
      tries=$((tries + 1))
    done
    kill -KILL "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
  done
  if [ "$code" -eq 0 ] || [ "$outcome" = interrupted ]; then
    rm -rf "$work"
  else
    [ -f "$work/operator.log" ] && { printf '\nThe last lines of the operator'\''s log:\n' && tail -n 25 "$work/operator.log"; } >&2
    printf '\nExit code %s. Everything is left in %s (operator.log, emulator.log).\n' "$code" "$work" >&2
  fi
  exit "$code"
}
trap finish EXIT
trap 'outcome=interrupted; exit 130' INT
trap 'outcome=interrupted; exit 143' TERM HUP

# Starts a process that ends with the demo: start NAME COMMAND…
start() {
  local name=$1
  shift
  "$@" >"$work/$name.log" 2>&1 </dev/null &
  pids="$! $pids"
}

# Waits until a command succeeds: eventually SECONDS "what was awaited" COMMAND…
eventually() {
  local limit=$1 what=$2 end pid
  shift 2
  end=$((SECONDS + limit))
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || fail "$what: not within $limit s"
    for pid in $pids; do kill -0 "$pid" 2>/dev/null || fail "$what: the operator or the emulator ended meanwhile"; done
    sleep 0.2
  done
}

# --- looking ------------------------------------------------------------------------------------------------------

# One field: field NAMESPACE NAME JSONPATH
field() {
  kubectl get vpptoken "$2" -n "$1" -o jsonpath="$3"
}

is() {
  [ "$(field "$1" "$2" "$3")" = "$4" ]
}

is_not() {
  [ "$(field "$1" "$2" "$3")" != "$4" ]
}

condition() {
  field "$1" "$2" "{.status.conditions[?(@.type=='$3')].$4}"
}

# What the emulator has, asked by its own door and not through the operator: intune TENANT [ID]
intune() {
  curl --silent --show-error --fail --max-time 10 "$(cat "$work/emulator.url")/emulator/tenants/$1/vppTokens${2:+/$2}"
}

# A field of the JSON on standard input. Flat objects with plain values are all that is needed.
json() {
  tr ',{}' '[\n*]' | sed -n 's/^ *"'"$1"'": *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p'
}

show_intune() {
  printf '\n# Intune has:\n'
  intune "$@" | tr ',{}' '[\n*]' |
    grep -E '"(id|organizationName|appleId|state|lastSyncStatus|expirationDateTime|uploads|syncs)"' | sed 's/^ */    /'
}

# --- doing --------------------------------------------------------------------------------------------------------

token_file() { # token_file FILE ORGANIZATION EXPIRY
  "$BIN/graph-emulator" make-token --organization "$2" --expires "$3" --out "$work/$1"
}

replace_secret() { # replace_secret NAMESPACE NAME KEY FILE
  printf '\n$ kubectl create secret generic %s -n %s --from-file=%s=%s --dry-run=client -o yaml | kubectl replace -f -\n' "$2" "$1" "$3" "$4"
  kubectl create secret generic "$2" -n "$1" --from-file="$3=$work/$4" --dry-run=client -o yaml | kubectl replace -f -
}

# How many syncs of a token ended: syncs TENANT ID, synced TENANT ID NUMBER
syncs() {
  intune "$1" "$2" | json syncs
}

synced() {
  [ "$(syncs "$1" "$2")" = "$3" ]
}

# Asks for a sync and sees exactly one happen: sync_now NAMESPACE NAME TENANT ID
sync_now() {
  local before count request
  before=$(field "$1" "$2" '{.status.lastSyncDateTime}')
  count=$(syncs "$3" "$4")
  request=$(date -u +%Y-%m-%dT%H:%M:%SZ)-$RANDOM
  show kubectl annotate vpptoken "$2" -n "$1" --overwrite "vpptoken.io/sync-requested-at=$request"
  eventually 20 "the request to sync $2 is answered in status.lastHandledSyncRequest" \
    is "$1" "$2" '{.status.lastHandledSyncRequest}' "$request"
  eventually 20 "Intune ends sync $((count + 1)) of $2" synced "$3" "$4" $((count + 1))
  eventually 20 "$2 has a later status.lastSyncDateTime than $before" is_not "$1" "$2" '{.status.lastSyncDateTime}' "$before"
  eventually 20 "the sync of $2 is completed" is "$1" "$2" '{.status.lastSyncStatus}' completed
  holds "last sync before: ${before:-never}; now: $(field "$1" "$2" '{.status.lastSyncDateTime}'), completed"
}

# The API server refuses a manifest with the sentence that the manifest's comment expects: refused FILE
refused() {
  local expected said
  expected=$(sed -n 's/^# expect: //p' "$1")
  printf '\n$ kubectl apply -n devices -f %s\n' "$1"
  if said=$(kubectl apply -n devices -f "$1" 2>&1); then fail "$1 was accepted"; fi
  printf '%s\n' "$said"
  case $said in
  *"$expected"*) holds "refused" ;;
  *) fail "$1 was refused, but not with: $expected" ;;
  esac
}

# --- set-up -------------------------------------------------------------------------------------------------------

step "The chart is installed. This control plane has no nodes, so the Deployment's pod stays pending; the operator runs
       as a process with a token of the chart's ServiceAccount, and with nothing but its rights."

secret() { # a random client secret, without a newline at its end
  LC_ALL=C od -An -N20 -tx1 /dev/urandom | tr -d ' \n' >"$work/$1.secret"
}
secret contoso
secret fabrikam
secret school
{
  printf '%s:1b6f0b6e-4f0a-4e0d-8c56-b1a5f7f2d9c3:%s\n' "$contoso" "$(cat "$work/contoso.secret")"
  printf '%s:6a0d4c3b-58e2-4f97-b0c1-3e9f2d7a8b54:%s\n' "$fabrikam" "$(cat "$work/fabrikam.secret")"
  printf '%s:e91c7f05-2d6b-4a83-95fe-7b4c0a2d8e16:%s\n' "$school" "$(cat "$work/school.secret")"
} >"$work/apps"
start emulator "$BIN/graph-emulator" serve --listen 127.0.0.1:0 --url-file "$work/emulator.url" \
  --apps-file "$work/apps" --sync-duration 2
eventually 10 "the Graph emulator says where it listens" test -s "$work/emulator.url"
graph=$(cat "$work/emulator.url")

printf '\n$ helm template vpptoken-operator charts/vpptoken-operator -n %s -f examples/values.yaml > rendered.yaml\n' "$system"
helm template vpptoken-operator charts/vpptoken-operator -n "$system" -f examples/values.yaml \
  --set "endpoints.graph=$graph" --set "endpoints.login=$graph" >"$work/rendered.yaml"
kubectl create namespace "$system" >/dev/null
show kubectl apply --server-side -f charts/vpptoken-operator/crds
kubectl wait --for=condition=Established --timeout=20s crd/vpptokens.vpptoken.io crd/graphtenants.vpptoken.io \
  crd/clustergraphtenants.vpptoken.io >/dev/null
printf '\n$ kubectl apply -f rendered.yaml\n'
kubectl apply -f "$work/rendered.yaml"

cluster() { kubectl config view --raw --flatten --minify -o jsonpath="{.clusters[0].cluster.$1}"; }
cat >"$work/operator.kubeconfig" <<YAML
apiVersion: v1
kind: Config
current-context: operator
contexts: [{ name: operator, context: { cluster: demo, user: operator, namespace: $system } }]
users: [{ name: operator, user: { token: "$(kubectl create token vpptoken-operator -n "$system" --duration=12h)" } }]
clusters:
  - name: demo
    cluster: { server: "$(cluster server)", certificate-authority-data: "$(cluster certificate-authority-data)" }
YAML
printf '\n$ kubectl auth whoami --kubeconfig operator.kubeconfig\n'
kubectl auth whoami --kubeconfig "$work/operator.kubeconfig"

start operator env KUBECONFIG="$work/operator.kubeconfig" POD_NAMESPACE="$system" "$BIN/vpptoken-operator" run \
  --listen 127.0.0.1:0 --graph-endpoint "$graph" --login-endpoint "$graph" --log-format text

step "Tokens appear: Secrets and manifests are applied, and a token for each is in Intune, synced once and ready."

show kubectl apply -f examples/namespaces.yaml
token_file Berlin.vpptoken Contoso "$soon"
token_file Munich.vpptoken Fabrikam "$soon"
token_file Campus.vpptoken "Contoso School" "$soon"
kubectl create secret generic graph-contoso -n "$system" --from-file=clientSecret="$work/contoso.secret"
kubectl create secret generic graph-fabrikam -n "$system" --from-file=clientSecret="$work/fabrikam.secret"
kubectl create secret generic graph-school -n school --from-file=clientSecret="$work/school.secret"
kubectl create secret generic berlin-vpp -n devices --from-file=token="$work/Berlin.vpptoken"
kubectl create secret generic munich-vpp -n devices --from-file=sToken_for_Munich.vpptoken="$work/Munich.vpptoken"
kubectl create secret generic campus-vpp -n school --from-file=token="$work/Campus.vpptoken"
show kubectl apply -f examples/cluster-graph-tenant.yaml -f examples/graph-tenant.yaml \
  -f examples/berlin.yaml -f examples/munich.yaml -f examples/campus.yaml
show kubectl wait --for=condition=Ready vpptoken/berlin vpptoken/munich -n devices --timeout=30s
show kubectl wait --for=condition=Ready vpptoken/campus -n school --timeout=30s
for token in devices/berlin devices/munich school/campus; do
  eventually 30 "the first sync of $token is completed" is "${token%/*}" "${token#*/}" '{.status.lastSyncStatus}' completed
done
show kubectl get vpptokens -A
show kubectl get vpptokens -A -o wide
show kubectl get clustergraphtenants,graphtenants -A

berlin=$(field devices berlin '{.status.tokenId}')
munich=$(field devices munich '{.status.tokenId}')
campus=$(field school campus '{.status.tokenId}')
for tenant in "$contoso" "$fabrikam" "$school"; do
  [ "$(intune "$tenant" | json id | wc -l)" -eq 1 ] || fail "Intune should have one token in tenant $tenant, and has: $(intune "$tenant")"
done
[ "$(intune "$contoso" | json id)" = "$berlin" ] || fail "berlin's status.tokenId is not the id that Intune has"
[ "$(intune "$fabrikam" | json id)" = "$munich" ] || fail "munich's status.tokenId is not the id that Intune has"
[ "$(intune "$school" | json id)" = "$campus" ] || fail "campus' status.tokenId is not the id that Intune has"
holds "each tenant has exactly one token in Intune, with the id that the status names"

if [ "$stay" = yes ]; then
  cat <<TEXT

=== All of it is running. In another terminal:

export KUBECONFIG=$KUBECONFIG
export PATH=$(dirname "$(command -v kubectl)"):\$PATH

Graph emulator:   $graph ($graph/emulator lists what it can be told; /emulator/tenants/$contoso/vppTokens)
Operator's log:   $work/operator.log
Test token files: $BIN/graph-emulator make-token --organization Contoso --expires $later

Ctrl-C takes all of it down.
TEXT
  trap 'outcome=interrupted; printf "\nTaking it down.\n"; exit 0' INT TERM HUP
  while :; do
    for pid in $pids; do kill -0 "$pid" 2>/dev/null || fail "the operator or the emulator ended"; done
    sleep 1
  done
fi

# --- the steps ----------------------------------------------------------------------------------------------------

step "A sync on request: an annotation asks for it, the status shows it running and then completed."

sync_now devices berlin "$contoso" "$berlin"
show kubectl get vpptoken berlin -n devices

step "A renewal: the Secret gets the new file, and it arrives on the same token in Intune; nothing is deleted or created."

before=$(field devices berlin '{.status.expirationDateTime}')
count=$(syncs "$contoso" "$berlin")
token_file Berlin-renewed.vpptoken Contoso "$later"
replace_secret devices berlin-vpp token Berlin-renewed.vpptoken
show kubectl wait --for=jsonpath='{.status.expirationDateTime}'="$later" vpptoken/berlin -n devices --timeout=30s
show kubectl wait --for=condition=Ready vpptoken/berlin -n devices --timeout=30s
[ "$before" = "$soon" ] || fail "the first file's expiry should have been $soon and was $before"
[ "$(field devices berlin '{.status.tokenId}')" = "$berlin" ] || fail "the renewal changed status.tokenId"
[ "$(intune "$contoso" | json id)" = "$berlin" ] || fail "Intune should have the one token $berlin, and has: $(intune "$contoso")"
[ "$(intune "$contoso" "$berlin" | json uploads)" -eq 2 ] || fail "Intune should have seen two uploads: $(intune "$contoso" "$berlin")"
eventually 20 "the sync after the renewal" synced "$contoso" "$berlin" $((count + 1))
show_intune "$contoso" "$berlin"
holds "same id $berlin; expiry before: $before, now: $later; two uploads in all, each followed by a sync"

step "Wrong manifests never get in: the API server refuses them with a sentence that says what to write."

refused examples/wrong/schedule-with-seconds.yaml
refused examples/wrong/country-spelled-out.yaml
refused examples/wrong/tenant-id-as-domain.yaml

step "A Secret that holds rubbish is not uploaded. The condition says so, and the token that Intune has still syncs."

rubbish=rubbish-$RANDOM$RANDOM-that-must-not-show-up-anywhere
printf '%s' "$rubbish" >"$work/rubbish"
replace_secret devices berlin-vpp token rubbish
show kubectl wait --for=condition=Stalled vpptoken/berlin -n devices --timeout=30s
[ "$(condition devices berlin Stalled reason)" = TokenFileMalformed ] ||
  fail "the reason should be TokenFileMalformed: $(condition devices berlin Stalled reason)"
show kubectl get vpptoken berlin -n devices -o jsonpath='{range .status.conditions[*]}{.type}={.status}  {.reason}: {.message}{"\n"}{end}'
sync_now devices berlin "$contoso" "$berlin"
[ "$(condition devices berlin Stalled status)" = True ] || fail "the condition Stalled went away while the Secret still held rubbish"
[ "$(intune "$contoso" "$berlin" | json uploads)" -eq 2 ] || fail "something was uploaded: $(intune "$contoso" "$berlin")"
[ "$(field devices berlin '{.status.expirationDateTime}')" = "$later" ] || fail "the token in Intune changed"
kubectl get vpptokens,clustergraphtenants,graphtenants -A -o yaml >"$work/statuses"
kubectl get events -A -o yaml >"$work/events"
for place in statuses events operator.log; do
  if grep -q -F -e "$rubbish" -f "$work/contoso.secret" -f "$work/Berlin-renewed.vpptoken" "$work/$place"; then
    fail "a secret shows up in $work/$place"
  fi
done
holds "nothing was uploaded, the sync ran, and no secret is in a status, an event or the log"
replace_secret devices berlin-vpp token Berlin-renewed.vpptoken
show kubectl wait --for=condition=Ready vpptoken/berlin -n devices --timeout=30s
holds "with the good file back, the condition ended by itself"

step "A deletion with the default policy Retain: the VppToken is gone, the token in Intune is still there."

show kubectl delete vpptoken munich -n devices --timeout=20s
show kubectl get vpptokens -A
[ "$(intune "$fabrikam" "$munich" | json id)" = "$munich" ] || fail "the token $munich is gone from Intune"
show_intune "$fabrikam" "$munich"
curl --silent --show-error --fail --max-time 10 --output "$work/requests" "$graph/emulator/requests"
if grep -q '"method": *"DELETE"' "$work/requests"; then fail "a DELETE was sent to Graph: see $work/requests"; fi
holds "Intune still has $munich, and no DELETE was ever sent to Graph"

outcome=held
printf '\nEverything that was shown happened. %s s.\n' "$SECONDS"
