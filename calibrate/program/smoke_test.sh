#!/usr/bin/env bash
# kvfathom-calibrate from outside: that it measures, fits and writes, takes up what a killed run
# left, and how it refuses. Argument: the program.
set -euo pipefail
calibrate=$1
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
fail() { echo "smoke_test: $*" >&2; exit 1; }
export HOME=$place/home XDG_DATA_HOME=
few=(--anyway --threads 1 --only cache_write/bf16)

"$calibrate" --help | grep -q -- --compare || fail "--help does not explain --compare"

# Killed once two points are in the journal.
"$calibrate" "${few[@]}" --out "$place/new/a.json" 2>/dev/null &
run=$!
for _ in $(seq 600); do
  [[ $(grep -c ' \.$' "$place/new/a.json.partial" 2>/dev/null) -ge 2 ]] && break
  sleep 0.05
done
kill -9 $run 2>/dev/null || fail "it ended before it could be killed"
wait $run 2>/dev/null || true
[[ ! -e $place/new/a.json ]] || fail "a killed run left a document"
printf 'cache_write/bf16/n_se' >>"$place/new/a.json.partial" # a line that was cut short
"$calibrate" "${few[@]}" --out "$place/new/a.json" >"$place/out" 2>"$place/err" ||
  fail "the second run: $(cat "$place/err")"
grep -q 'points are taken up' "$place/err" || fail "nothing was taken up: $(cat "$place/err")"
[[ ! -e $place/new/a.json.partial ]] || fail "the journal stays"
grep -q '"id":"cache_write/bf16"' "$place/new/a.json" || fail "no class in $(cat "$place/new/a.json")"

# Compared with itself; kept where calibrations are kept.
"$calibrate" "${few[@]}" --compare "$place/new/a.json" >"$place/out" 2>/dev/null || fail "--compare"
grep -q 'time x' "$place/out" || fail "no comparison: $(cat "$place/out")"
ls "$place"/home/.local/share/kvfathom/calibrations/*.json >/dev/null || fail "not kept in HOME"

# refused STATUS WHAT_IS_ALLOWED ARGUMENTS...
refused() {
  local expected=$1 allowed=$2 status=0
  shift 2
  "$calibrate" "$@" >"$place/stdout" 2>"$place/stderr" || status=$?
  [[ $status == "$expected" ]] || fail "$*: exit code $status instead of $expected"
  grep -q -- "$allowed" "$place/stderr" || fail "$*: does not name $allowed: $(cat "$place/stderr")"
}
refused 2 "cpu or cuda" --device tpu
refused 2 "whole number" --threads none
refused 2 "--help" --no-such-option x
refused 2 "gemm/bf16" --anyway --out "$place/b.json" --only no-such-class
refused 4 "--out FILE" --anyway --out /proc/none/c.json
