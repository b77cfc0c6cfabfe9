#!/usr/bin/env bash
# scripts/kvfathom and scripts/test with stand-ins for the tools: what they install, when they build,
# what they pass on. Run as: scripts_test.sh REPOSITORY SCRATCH
set -euo pipefail
repository=$1
scratch=$2/"a folder with spaces"

fail() {
  echo "FAILED: $*" >&2
  [[ ! -e $scratch/log ]] || sed 's/^/  called: /' "$scratch/log" >&2
  exit 1
}
equal() { [[ $1 == "$2" ]] || fail "$3: \"$1\" is not \"$2\""; }
calls() { grep -c "^$1" "$scratch/log" || true; }

rm -rf "$scratch"
clone=$scratch/clone
mkdir -p "$scratch/bin" "$clone/model" "$clone/calibrate" "$clone/cli" "$clone/cmake"
cp -r "$repository/scripts" "$clone/"
touch "$clone/CMakeLists.txt" "$clone/CMakePresets.json" "$clone/model/a.cpp" "$clone/cli/main.cpp"

# Stand-ins. cmake "builds" a program that prints its arguments between brackets.
stand_in() {
  printf '#!/bin/bash\necho "%s $*" >>"%s/log"\n%s\n' "$1" "$scratch" "$2" >"$scratch/bin/$1"
  chmod +x "$scratch/bin/$1"
}
stand_in cmake '
case $1 in
  --version) echo "cmake version 3.25.1" ;;
  -S) mkdir -p "$2/build/cpu"; touch "$2/build/cpu/build.ninja"
      [[ $* =~ KVFATHOM_KERNELS=(ON|OFF) ]]
      printf "CMAKE_HOME_DIRECTORY:INTERNAL=%s\nKVFATHOM_KERNELS:BOOL=%s\n" \
        "$2" "${BASH_REMATCH[1]}" >"$2/build/cpu/CMakeCache.txt" ;;
  --build) [[ ! -e "$2/../../broken" ]] || { echo "main.cpp:1: error: broken"; exit 1; }
      printf "#!/bin/bash\nprintf \"[%%s]\" \"\$@\"\nexit 3\n" >"$2/kvfathom"; chmod +x "$2/kvfathom" ;;
esac'
stand_in ctest 'pwd >>"'"$scratch"'/log"; echo "100% tests passed"'
stand_in apt-get ''
stand_in sudo '"$@"'
stand_in ninja ''
stand_in c++ ''
export PATH=$scratch/bin:$PATH
kvfathom=$clone/scripts/kvfathom

# The first call configures, builds and runs, from any folder, arguments and exit status untouched.
cd /
status=0
output=$("$kvfathom" fit "two words" '' --json 2>"$scratch/stderr") || status=$?
equal "$output" "[fit][two words][][--json]" "output of the first call"
equal "$status" 3 "exit status of the program"
equal "$(calls 'cmake -S')" 1 "configurations"
grep -q -- "-DKVFATHOM_KERNELS=OFF" "$scratch/log" || fail "the program alone built kernels"
equal "$(calls 'cmake --build')" 1 "builds"

# The second call runs nothing but the program, and says nothing.
: >"$scratch/log"
"$kvfathom" list 2>"$scratch/stderr" >/dev/null || true
equal "$(cat "$scratch/log")" "" "tools called by the second call"
equal "$(cat "$scratch/stderr")" "" "stderr of the second call"

# A newer source, a removed source and a link to the script are noticed or followed.
touch -d '+2 seconds' "$clone/model/a.cpp"
"$kvfathom" >/dev/null 2>&1 || true
equal "$(calls 'cmake --build')" 1 "builds after a source changed"
equal "$(calls 'cmake -S')" 0 "configurations after a source changed"
touch -d '-1 hour' "$clone/model/a.cpp" "$clone/model"
: >"$scratch/log"
"$kvfathom" >/dev/null 2>&1 || true
equal "$(calls 'cmake --build')" 0 "builds with nothing changed"
rm "$clone/model/a.cpp"
touch -d '+2 seconds' "$clone/model" # as removal does, beyond the clock's grain
ln -s "$kvfathom" "$scratch/bin/linked"
"$scratch/bin/linked" >/dev/null 2>&1 || true
equal "$(calls 'cmake --build')" 1 "builds after a source was removed"
touch -d '-1 hour' "$clone/model"

# A broken build shows the compiler's message, fails, and does not count as built.
touch "$clone/broken"
touch -d '+2 seconds' "$clone/cli/main.cpp"
for attempt in 1 2; do
  status=0
  "$kvfathom" >"$scratch/stdout" 2>"$scratch/stderr" || status=$?
  equal "$status" 4 "exit status of broken build $attempt"
  grep -q "main.cpp:1: error: broken" "$scratch/stderr" || fail "compiler message not shown"
  equal "$(cat "$scratch/stdout")" "" "stdout of a broken build"
done
rm "$clone/broken"

# scripts/test builds everything and hands its arguments to ctest, in the clone.
: >"$scratch/log"
"$clone/scripts/test" -R "some test" >/dev/null 2>&1
grep -q -- "^cmake --build .* --target all" "$scratch/log" || fail "scripts/test built not all"
grep -q -- "^cmake -S .*-DKVFATHOM_KERNELS=ON" "$scratch/log" || fail "tests without kernels"
grep -q -- "^ctest --preset cpu .*-R some test" "$scratch/log" || fail "arguments not passed to ctest"
equal "$(tail -n 1 "$scratch/log")" "$clone" "folder of ctest"

# ... and what it configured serves both.
: >"$scratch/log"
"$clone/scripts/test" >/dev/null 2>&1
"$kvfathom" >/dev/null 2>&1 || true
equal "$(calls 'cmake -S')" 0 "configurations after scripts/test"

# A moved clone is configured again.
mv "$clone" "$scratch/moved"
: >"$scratch/log"
touch -d '+2 seconds' "$scratch/moved/cli/main.cpp"
"$scratch/moved/scripts/kvfathom" >/dev/null 2>&1 || true
equal "$(calls 'cmake -S')" 1 "configurations of a moved clone"

# scripts/gpu-check refuses what it does not know, and says what it could not do without failing.
for argument in nonsense --nonsense --out; do
  status=0
  "$scratch/moved/scripts/gpu-check" "$argument" 2>"$scratch/stderr" || status=$?
  equal "$status" 2 "exit status of gpu-check $argument"
done
"$scratch/moved/scripts/gpu-check" --out "$scratch/results" tests memcheck bench 2>"$scratch/stderr" ||
  fail "gpu-check fails where nothing is built"
equal "$(cat "$scratch/results/summary.txt")" "tests: skipped: not built
memcheck: skipped: not built
bench: skipped: not built" "summary of gpu-check"

# What is missing is named and asked of apt, with sudo only for those who are not root; an old
# CMake counts as missing, and nothing is asked for that is there.
(
  source "$scratch/moved/scripts/common.sh"
  has_header() { [[ $1 != CLI/CLI.hpp && $1 != *openblas_config.h ]]; }
  cmake_version() { echo 3.22.1; }
  equal "$(missing_packages kvfathom | tr '\n' ' ')" "cmake libcli11-dev " "missing for the program"
  equal "$(missing_packages all | tr '\n' ' ')" "cmake libcli11-dev libopenblas-dev " "missing for all"
  : >"$scratch/log"
  install_packages g++ cmake 2>"$scratch/stderr"
  grep -q "installing g++ cmake" "$scratch/stderr" || fail "does not say what it installs"
  grep -q "^apt-get install .*g++ cmake" "$scratch/log" || fail "apt-get not called"
  if ((EUID == 0)); then
    equal "$(calls sudo)" 0 "sudo calls of root"
  else
    equal "$(calls sudo)" 2 "sudo calls of a user"
  fi
  : >"$scratch/log"
  install_packages
  equal "$(cat "$scratch/log")" "" "calls with nothing missing"
  at_least 3.25 3.25 && at_least 3.25 3.31.2 && ! at_least 3.25 3.9.9 && ! at_least 3.25 "" ||
    fail "versions compared wrongly"
)
rm -rf "$scratch"
echo "scripts: all as expected"
