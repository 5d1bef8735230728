# Counts what `cargo test --no-fail-fast -- --show-output` did: reads its output, prints what a
# person wants to see of it, and writes "passed failed skipped" to the file `counts`.
#
# A test that prints a line beginning with "skipped: " counts as skipped, not as passed; so does an
# ignored one. A test program that ends without its "test result:" line (it crashed) is one failure.

function crashed() {
    if (running != "") {
        failed++
        print "crashed: " running
    }
    running = ""
}

{ fflush() }

/^ +Compiling ptystream/ { print; next }
/^ +Running / || /^ +Doc-tests / {
    crashed()
    running = $0
    sub(/^ +/, "", running)
    next
}
/^test result: / {
    sub(/^(Running|unittests|Running unittests) /, "", running)
    sub(/ \(.*/, "", running)
    line = $0
    sub(/^test result: /, "", line)
    sub(/; 0 measured.*/, "", line)
    print running ": " line
    running = ""
    shown = ""
    split($0, field, /[^0-9]+/)
    # "test result: ok. P passed; F failed; I ignored; ..."
    passed += field[2]
    failed += field[3]
    skipped += field[4]
    next
}
/^---- .* stdout ----$/ {
    name = $2
    said = 0
    next
}
/^successes:$/ { shown = "successes"; next }
/^failures:$/ { shown = "failures"; print; next }
/^skipped: / {
    if (shown == "successes" && name != "" && !said) {
        said = 1
        passed--
        skipped++
    }
    print "  " name ": " $0
    next
}
/^running [0-9]+ tests?$/ { shown = ""; name = ""; next }
/^test .* \.\.\. (ok|ignored.*)$/ { next }
/^test .* \.\.\. FAILED$/ { print; next }
shown == "failures" { print; next }
shown == "" && /^(error|warning)[:[]/ { diagnostics = 1 }
/^$/ { diagnostics = 0 }
diagnostics { print }
END {
    crashed()
    printf "%d %d %d\n", passed, failed, skipped > counts
}
