#!/bin/sh
# Runs all checks and prints, last and alone on its line, "N passed, N failed, N skipped".
#
#   test.sh VENV
#
# Counted are the Rust tests, the Python tests, the containers, those over MPI ranks, and each of the three lints as one.
# Exit status 0 only if nothing failed.
set -u

venv=${1:?usage: test.sh VENV}
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.." || exit 1
# Cargo runs tests in their crate's folder.
case "$venv" in /*) ;; *) venv="$PWD/$venv" ;; esac
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

passed=0
failed=0
skipped=0

say() { printf '\n== %s\n' "$*"; }

# Adds the three numbers in a file, or one failure if the file is not there.
add_counts() {
    p=0 f=1 s=0
    if [ -s "$1" ]; then
        read -r p f s <"$1"
    fi
    passed=$((passed + p))
    failed=$((failed + f))
    skipped=$((skipped + s))
}

# Makes sure that a step that says no by its exit status is counted as a failure.
add_status() {
    if [ "$1" -ne 0 ] && [ "$f" -eq 0 ]; then
        printf '%s ended with status %s without naming a failed test\n' "$2" "$1"
        failed=$((failed + 1))
    fi
}

lint() {
    if output=$("$here/lint.sh" "$1" 2>&1); then
        case "$output" in
            skipped:*) skipped=$((skipped + 1)) ;;
            *) passed=$((passed + 1)) ;;
        esac
        printf '%s: %s\n' "$1" "${output:-ok}"
    else
        failed=$((failed + 1))
        printf '%s: FAILED\n%s\n' "$1" "$output"
    fi
}

say "cargo test --workspace"
{
    PTYSTREAM_PYTHON="$venv/bin/python" CARGO_TERM_COLOR=never \
        cargo test --workspace --no-fail-fast -- --show-output 2>&1
    echo $? >"$scratch/status"
} | awk -v counts="$scratch/rust" -f "$here/cargo_counts.awk"
add_counts "$scratch/rust"
add_status "$(cat "$scratch/status")" "cargo test"
printf 'rust: %s passed, %s failed, %s skipped.\n' "$p" "$f" "$s"

say "pytest tests/python"
if cargo build --quiet --bin ptystream; then
    target=$(cargo metadata --format-version 1 --no-deps |
        "$venv/bin/python" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
    PTYSTREAM_BIN="$target/debug/ptystream" PTYSTREAM_COUNTS="$scratch/python" \
        "$venv/bin/python" -m pytest -q -rs -p no:cacheprovider --color=no tests/python
    status=$?
    add_counts "$scratch/python"
    add_status "$status" "pytest"
else
    failed=$((failed + 1))
fi

say "containers"
tests/compose/run.sh "${target:-target}/debug/ptystream" "${target:-target}/compose"
case $? in
    0) passed=$((passed + 1)) ;;
    77) skipped=$((skipped + 1)) ;;
    *) failed=$((failed + 1)) ;;
esac

# Last of the tests, because it leaves a program with MPI built in.
say "cargo test --features mpi"
if command -v mpirun >/dev/null && command -v mpicc >/dev/null; then
    # Its own cores and links, then whole scans, then the goldens that were made over ranks.
    over_mpi() {
        CARGO_TERM_COLOR=never cargo test --features mpi -p ptystream-common -p ptystream \
            --no-fail-fast "$@" 2>&1 || echo 1 >"$scratch/status"
    }
    echo 0 >"$scratch/status"
    {
        over_mpi --lib --test link -- --show-output mpi
        over_mpi --test mpi -- --show-output
        over_mpi --test goldens -- ranks
    } | awk -v counts="$scratch/mpi" -f "$here/cargo_counts.awk"
    add_counts "$scratch/mpi"
    add_status "$(cat "$scratch/status")" "cargo test --features mpi"
    printf 'mpi: %s passed, %s failed, %s skipped.\n' "$p" "$f" "$s"
else
    printf 'skipped: MPI, because there is no mpirun or no mpicc\n'
    skipped=$((skipped + 1))
fi

say "lint"
for step in fmt clippy doc; do
    lint "$step"
done

printf '\n%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
