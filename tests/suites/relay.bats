#!/usr/bin/env bats
# shellcheck shell=bash
# Both programs in a row, with a socket at each end. What each case does is said in relay.py.
load ../helpers/lib

@test "every case of relay.py is run" {
	diff <("$TESTS/suites/relay.py" list | sort) \
		<(sed -n 's/.*relay.py" case \([a-zA-Z-]*\)$/\1/p' "$TESTS/suites/relay.bats" "$TESTS/suites/near.bats" | sort)
}

@test "half close app first" {
	"$TESTS/suites/relay.py" case half-close-app-first
}

@test "half close service first" {
	"$TESTS/suites/relay.py" case half-close-service-first
}

@test "end follows data" {
	"$TESTS/suites/relay.py" case end-follows-data
}

@test "close at once" {
	"$TESTS/suites/relay.py" case close-at-once
}

@test "no delay at the end" {
	"$TESTS/suites/relay.py" case no-delay-at-the-end
}

@test "only writing" {
	"$TESTS/suites/relay.py" case only-writing
}

@test "both ways randomly" {
	"$TESTS/suites/relay.py" case both-ways-randomly
}

@test "stalled service" {
	"$TESTS/suites/relay.py" case stalled-service
}

@test "stalled app" {
	"$TESTS/suites/relay.py" case stalled-app
}

@test "tiny writes" {
	"$TESTS/suites/relay.py" case tiny-writes
}

@test "promptness" {
	"$TESTS/suites/relay.py" case promptness
}

@test "app reset while all is silent" {
	"$TESTS/suites/relay.py" case app-reset-while-all-is-silent
}

@test "app reset after its end" {
	"$TESTS/suites/relay.py" case app-reset-after-its-end
}

@test "app reset after the others end" {
	"$TESTS/suites/relay.py" case app-reset-after-the-others-end
}

@test "app reset in a flood" {
	"$TESTS/suites/relay.py" case app-reset-in-a-flood
}

@test "service reset while all is silent" {
	"$TESTS/suites/relay.py" case service-reset-while-all-is-silent
}

@test "service reset after its end" {
	"$TESTS/suites/relay.py" case service-reset-after-its-end
}

@test "service reset after the others end" {
	"$TESTS/suites/relay.py" case service-reset-after-the-others-end
}

@test "service reset in a flood" {
	"$TESTS/suites/relay.py" case service-reset-in-a-flood
}

@test "close with unread" {
	"$TESTS/suites/relay.py" case close-with-unread
}

@test "signal TERM" {
	"$TESTS/suites/relay.py" case signal-TERM
}

@test "signal INT" {
	"$TESTS/suites/relay.py" case signal-INT
}

@test "signal HUP" {
	"$TESTS/suites/relay.py" case signal-HUP
}

@test "command fails at the end" {
	"$TESTS/suites/relay.py" case command-fails-at-the-end
}

@test "command ends with unread input" {
	"$TESTS/suites/relay.py" case command-ends-with-unread-input
}

@test "command ends but not its input" {
	"$TESTS/suites/relay.py" case command-ends-but-not-its-input
}

@test "command half closes" {
	"$TESTS/suites/relay.py" case command-half-closes
}

@test "command outlives its ends" {
	"$TESTS/suites/relay.py" case command-outlives-its-ends
}

@test "every signal is a break" {
	"$TESTS/suites/relay.py" case every-signal-is-a-break
}

@test "nobody left to read" {
	"$TESTS/suites/relay.py" case nobody-left-to-read
}

@test "signal in a flood" {
	"$TESTS/suites/relay.py" case signal-in-a-flood
}

@test "every death is a break" {
	"$TESTS/suites/relay.py" case every-death-is-a-break
}

@test "file size limit" {
	"$TESTS/suites/relay.py" case file-size-limit
}

@test "urgent data" {
	"$TESTS/suites/relay.py" case urgent-data
}

@test "socket options" {
	"$TESTS/suites/relay.py" case socket-options
}
