#!/usr/bin/env bats
# shellcheck shell=bash
# Both programs in a row, with a socket at each end. What each case does is said in relay.py.
load lib

@test "every case of relay.py is run" {
	diff <("$TESTS/relay.py" list | sort) \
		<(sed -n 's/.*relay.py" case \([a-zA-Z-]*\)$/\1/p' "$TESTS/relay.bats" "$TESTS/near.bats" | sort)
}

@test "half close app first" {
	"$TESTS/relay.py" case half-close-app-first
}

@test "half close service first" {
	"$TESTS/relay.py" case half-close-service-first
}

@test "end follows data" {
	"$TESTS/relay.py" case end-follows-data
}

@test "close at once" {
	"$TESTS/relay.py" case close-at-once
}

@test "no delay at the end" {
	"$TESTS/relay.py" case no-delay-at-the-end
}

@test "only writing" {
	"$TESTS/relay.py" case only-writing
}

@test "both ways randomly" {
	"$TESTS/relay.py" case both-ways-randomly
}

@test "stalled service" {
	"$TESTS/relay.py" case stalled-service
}

@test "stalled app" {
	"$TESTS/relay.py" case stalled-app
}

@test "tiny writes" {
	"$TESTS/relay.py" case tiny-writes
}

@test "promptness" {
	"$TESTS/relay.py" case promptness
}

@test "app reset while all is silent" {
	"$TESTS/relay.py" case app-reset-while-all-is-silent
}

@test "app reset after its end" {
	"$TESTS/relay.py" case app-reset-after-its-end
}

@test "app reset after the others end" {
	"$TESTS/relay.py" case app-reset-after-the-others-end
}

@test "app reset in a flood" {
	"$TESTS/relay.py" case app-reset-in-a-flood
}

@test "service reset while all is silent" {
	"$TESTS/relay.py" case service-reset-while-all-is-silent
}

@test "service reset after its end" {
	"$TESTS/relay.py" case service-reset-after-its-end
}

@test "service reset after the others end" {
	"$TESTS/relay.py" case service-reset-after-the-others-end
}

@test "service reset in a flood" {
	"$TESTS/relay.py" case service-reset-in-a-flood
}

@test "close with unread" {
	"$TESTS/relay.py" case close-with-unread
}

@test "killed program" {
	"$TESTS/relay.py" case killed-program
}

@test "signal TERM" {
	"$TESTS/relay.py" case signal-TERM
}

@test "signal INT" {
	"$TESTS/relay.py" case signal-INT
}

@test "signal HUP" {
	"$TESTS/relay.py" case signal-HUP
}

@test "command fails at the end" {
	"$TESTS/relay.py" case command-fails-at-the-end
}

@test "command ends with unread input" {
	"$TESTS/relay.py" case command-ends-with-unread-input
}

@test "command ends but not its input" {
	"$TESTS/relay.py" case command-ends-but-not-its-input
}

@test "command half closes" {
	"$TESTS/relay.py" case command-half-closes
}

@test "command outlives its ends" {
	"$TESTS/relay.py" case command-outlives-its-ends
}

@test "every signal is a break" {
	"$TESTS/relay.py" case every-signal-is-a-break
}

@test "nobody left to read" {
	"$TESTS/relay.py" case nobody-left-to-read
}

@test "signal in a flood" {
	"$TESTS/relay.py" case signal-in-a-flood
}
