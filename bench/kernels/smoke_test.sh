#!/usr/bin/env bash
# kvfathom-bench from outside: what it lists, that tiny cases of every kernel run and are right,
# and how it refuses. Argument: the program.
set -euo pipefail
bench=$1
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
fail() { echo "smoke_test: $*" >&2; exit 1; }

"$bench" --help | grep -q -- --rotation-bytes || fail "--help does not explain --rotation-bytes"
kernels=$("$bench" --list | grep -v '^ ')
grep -qx bandwidth <<<"$kernels" || fail "--list does not name bandwidth"

"$bench" --device cpu --shapes tiny --max-seconds 0.01 --rotation-bytes 64KiB \
  --benchmark_format=json --benchmark_out="$place/out.json" >"$place/stdout.json" ||
  fail "tiny cases: exit code $?"
for file in "$place/stdout.json" "$place/out.json"; do
  grep -q '"share"' "$file" || fail "$file holds no share"
  ! grep -q error_occurred "$file" || fail "a case failed: $(grep -m1 error_message "$file")"
done
"$bench" --device cpu --shapes tiny --benchmark_list_tests >"$place/cases"
[[ -s $place/cases ]] || fail "no cases"
while read -r case; do
  grep -qF "\"$case" "$place/out.json" || fail "$case did not run"
done <"$place/cases"

printf 'kernels = bandwidth\nformats = read\nshapes = bytes=65536\nmax-seconds = 0.01\n' \
  >"$place/config"
"$bench" --device cpu --config "$place/config" --rotation-bytes 1MiB --benchmark_format=csv |
  grep -q '^"cpu/bandwidth/read/bytes:65536' || fail "--config was not followed"

# refused WHAT_IS_ALLOWED ARGUMENTS...
refused() {
  local allowed=$1 status=0
  shift
  "$bench" "$@" >"$place/stdout" 2>"$place/stderr" || status=$?
  [[ $status == 2 ]] || fail "$*: exit code $status instead of 2"
  [[ $(wc -l <"$place/stderr") == 1 ]] || fail "$*: not one line: $(cat "$place/stderr")"
  grep -q -- "$allowed" "$place/stderr" || fail "$*: does not name $allowed: $(cat "$place/stderr")"
}
refused --shapes --no-such-option
refused --shapes stray
refused bandwidth --kernels no-such-kernel
refused fill --kernels bandwidth --formats q9
refused "cpu, cuda, all" --device tpu
refused bytes --kernels bandwidth --shapes tokens=4
refused "positive whole number" --threads none
refused "benchmark_help" --benchmark_no_such_option
