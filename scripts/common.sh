# Shared by scripts/kvfathom, scripts/test and .ci/run: install what is missing, configure, build.
# To be sourced. Everything said goes to stderr: stdout belongs to the program.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
build=$root/build/cpu

say() { printf 'kvfathom: %s\n' "$*" >&2; }
fail() {
  say "$*"
  exit 4
}

# has_header NAME...: whether every header is where a compiler looks for it.
has_header() {
  local header
  for header in "$@"; do
    compgen -G "/usr/include/$header" >/dev/null ||
      compgen -G "/usr/include/*-linux-*/$header" >/dev/null ||
      compgen -G "/usr/local/include/$header" >/dev/null || return 1
  done
}

# at_least WANTED FOUND: whether version FOUND is not older.
at_least() { [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]; }

cmake_version() { cmake --version 2>/dev/null | sed -n 's/^cmake version \([0-9.]*\).*/\1/p'; }

# The packages that a build of TARGET needs and this machine lacks: little for `kvfathom` alone,
# more for everything (kernels, tests, benchmarks). A tool or header that came from elsewhere than
# apt counts as there.
missing_packages() {
  command -v c++ >/dev/null || echo g++
  { command -v cmake >/dev/null && at_least 3.25 "$(cmake_version)"; } || echo cmake
  command -v ninja >/dev/null || echo ninja-build
  has_header nlohmann/json.hpp || echo nlohmann-json3-dev
  has_header CLI/CLI.hpp || echo libcli11-dev
  [[ $1 != kvfathom ]] || return 0
  has_header gtest/gtest.h || echo libgtest-dev
  has_header hwy/highway.h || echo libhwy-dev
  # Any BLAS brings a cblas.h; this one is OpenBLAS's own, in a folder of its own on Debian.
  has_header 'openblas*/openblas_config.h' || has_header openblas_config.h || echo libopenblas-dev
  has_header boost/program_options.hpp || echo libboost-program-options-dev
  has_header benchmark/benchmark.h || echo libbenchmark-dev
}

# install_packages PACKAGE...: through apt, as root or with sudo; silent unless it fails.
install_packages() {
  (($# > 0)) || return 0
  command -v apt-get >/dev/null ||
    fail "missing: $*; this is no Debian or Ubuntu, so please install them yourself"
  local as_root=() log
  if ((EUID != 0)); then
    command -v sudo >/dev/null || fail "missing: $*; run as root: apt-get install $*"
    as_root=(sudo)
  fi
  say "installing $* (apt-get${as_root:+ with sudo})"
  log=$(mktemp)
  if ! { "${as_root[@]}" apt-get update &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get install --yes --no-install-recommends "$@"; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    fail "apt-get could not install: $*"
  fi
  rm -f "$log"
}

# ensure_tools TARGET
ensure_tools() {
  local missing
  mapfile -t missing < <(missing_packages "$1")
  install_packages "${missing[@]}"
  at_least 3.25 "$(cmake_version)" ||
    fail "CMake 3.25 or newer is needed and apt has $(cmake_version); see https://cmake.org/download"
}

# quietly WHAT COMMAND...: runs it with its output in a log that is shown only if it fails.
quietly() {
  local what=$1 log started=$SECONDS
  shift
  log=$(mktemp)
  say "$what ..."
  if ! "$@" >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    rm -f "$log"
    fail "$what failed: $*"
  fi
  rm -f "$log"
  say "$what took $((SECONDS - started)) s"
}

# build_target TARGET: configures build/cpu if need be, then builds the target: `kvfathom`, without
# asking for what only tests and kernels need, or anything else. Two callers at a time take turns.
build_target() {
  local parts=OFF
  [[ $1 == kvfathom ]] || parts=ON
  mkdir -p "$build"
  exec 9>"$build/.lock"
  if command -v flock >/dev/null && ! flock --nonblock 9; then
    say "waiting for another build in $build"
    flock 9
  fi
  # A copied or moved clone carries a cache that names its old place.
  if [[ -e $build/CMakeCache.txt ]] &&
    ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$build/CMakeCache.txt"; then
    rm -rf "$build/CMakeCache.txt" "$build/CMakeFiles"
  fi
  # What is configured for everything serves the program too, not the other way round.
  if [[ ! -e $build/build.ninja ]] ||
    ! grep -qxE "KVFATHOM_KERNELS:BOOL=(ON|$parts)" "$build/CMakeCache.txt" 2>/dev/null; then
    ensure_tools "$1"
    quietly "configuring" cmake -S "$root" --preset cpu \
      -DKVFATHOM_KERNELS=$parts -DKVFATHOM_TESTS=$parts -DKVFATHOM_BENCH=$parts
  fi
  quietly "building $1" cmake --build "$build" --target "$1"
  exec 9>&-
}
