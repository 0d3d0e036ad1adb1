# Sourced by the other scripts: makes a virtual environment with the project in it, and does nothing when that is done.
# EDGEWISE_VENV names the folder (default: .venv in the repository); an existing environment is reused.
# PYTHON names the interpreter to start from. Progress goes to stderr, so that stdout stays the job's own.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${EDGEWISE_VENV:-$ROOT/.venv}"
PY="$VENV/bin/python"
PIP=("$PY" -m pip --disable-pip-version-check --no-input)

say() { printf '[edgewise] %s\n' "$*" >&2; }
die() { say "$*"; exit 2; }

find_python() {
  local name
  for name in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 python; do
    if command -v "$name" >/dev/null 2>&1 &&
       "$name" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      command -v "$name"
      return
    fi
  done
  die "Python 3.11 or later with its venv module was not found; install it, or set PYTHON to its path."
}

has_compiler() {
  command -v "${CXX:-c++}" >/dev/null 2>&1 || command -v g++ >/dev/null 2>&1 || command -v clang++ >/dev/null 2>&1
}

digest() {  # of the contents and names of the given files and folders
  (cd "$ROOT" && find "$@" -type f ! -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-64)
}

install() {  # install WHAT PIP-ARGUMENTS...: quiet while it works, the whole log when it does not
  local what="$1" log start=$SECONDS
  shift
  log="$(mktemp)"
  say "$what ..."
  if ! (cd "$ROOT" && "${PIP[@]}" install "$@") >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    die "$what failed: pip's log is above."
  fi
  rm -f "$log"
  say "$what: $((SECONDS - start)) s"
}

toml_list() {  # toml_list KEY.KEY: one requirement a line
  "$PY" - "$ROOT/pyproject.toml" "$1" <<'PYTHON'
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    value = tomllib.load(file)
for key in sys.argv[2].split("."):
    value = value[key]
print("\n".join(value))
PYTHON
}

make_venv() {
  if [[ ! -x "$PY" ]]; then
    local python
    python="$(find_python)"
    say "making a virtual environment in $VENV with $("$python" --version)"
    "$python" -m venv "$VENV" || die "python -m venv failed; on Debian and Ubuntu install python3-venv."
  fi
}

ready() {  # the project installed (editable), its extension built from the sources as they are now
  local stamp="$VENV/.edgewise-built" now
  now="$(digest csrc CMakeLists.txt pyproject.toml) $ROOT"
  if [[ -x "$PY" && -f "$stamp" && "$(<"$stamp")" == "$now" ]]; then
    return
  fi
  has_compiler || die "A C++ compiler is needed once, to build the extension; install g++ (or set CXX)."
  make_venv
  local requirements
  mapfile -t requirements < <(toml_list build-system.requires)
  install "installing the build tools" "${requirements[@]}"
  install "building edgewise" --no-build-isolation -e .
  printf '%s' "$now" >"$stamp"
}

ready_extra() {  # ready_extra NAME: the requirements of an extra; the exact PyTorch first, so that a local build of it is kept
  local stamp="$VENV/.edgewise-extra-$1" now requirement requirements
  now="$(digest pyproject.toml)"
  [[ -f "$stamp" && "$(<"$stamp")" == "$now" ]] && return
  mapfile -t requirements < <(toml_list "project.optional-dependencies.$1")
  for requirement in "${requirements[@]}"; do
    if [[ "$requirement" == torch==* ]]; then
      install "installing $requirement" "$requirement"
    fi
  done
  install "installing the extra '$1'" "${requirements[@]}"
  printf '%s' "$now" >"$stamp"
}
