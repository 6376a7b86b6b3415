#!/usr/bin/env bats
# shellcheck shell=bash disable=SC2016,SC2030,SC2031,SC2154
# The command line and the key file: what is refused, with which status, and what is said.
load ../helpers/lib

# fails STATUS PROGRAM REGEX ARGUMENT...: it ends with STATUS and one line on stderr that matches REGEX, at once,
# with nothing on stdout.
fails() {
	local wanted=$1 program=$2 regex=$3
	shift 3
	echo "${program##*/} $*"
	status=0
	timeout -s KILL 5 "$program" "$@" </dev/null >stdout 2>stderr.err || status=$?
	if [ "$status" -ne "$wanted" ]; then
		echo "status $status, not $wanted"
		cat stderr.err
		return 1
	fi
	[ ! -s stdout ]
	one_line stderr.err "${program##*/}" "$regex"
	[ ! -e ran ]
}

@test "usage errors of both programs: 64" {
	local program
	for program in "$ENC" "$DEC"; do
		fails 64 "$program" . -Z -k key true
		fails 64 "$program" . --nonsense -k key true
		fails 64 "$program" . --key
		fails 64 "$program" . -k
		fails 64 "$program" . -k key -o
		fails 64 "$program" . -f -g -k key touch ran
		fails 64 "$program" . -fg -k key touch ran
		fails 64 "$program" . --no-pfs --require-pfs -k key touch ran
		fails 64 "$program" . -g -f -k key touch ran
		fails 64 "$program" . -p -k key
	done
	fails 64 "$ENC" 'key' touch ran
	fails 64 "$DEC" 'key' touch ran
	fails 64 "$ENC" . -K . touch ran
	fails 64 "$ENC" . --key-dir . touch ran
	fails 64 "$DEC" . -K . -K . touch ran
}

@test "repeated options: 64" {
	local program option
	for program in "$ENC" "$DEC"; do
		for option in -f -g -j -p '-o 3' '-i 3' --no-pfs --require-pfs --no-keepalive --fd-pass '--timeout=3' \
			'--idle=3' '--linger=3' '--sandbox=auto' --verbose -x; do
			# shellcheck disable=SC2086 # an option and its value
			fails 64 "$program" . -k key $option $option touch ran
		done
		fails 64 "$program" . -k key -f --no-pfs touch ran
		fails 64 "$program" . -k key -o 3 --timeout 4 touch ran
	done
	fails 64 "$ENC" . -k key -k key touch ran
	fails 64 "$ENC" . -k key --key other touch ran
}

@test "messages name the option as it was typed; abbreviations are refused" {
	local program word
	for program in "$ENC" "$DEC"; do
		fails 64 "$program" 'option --no-pfs takes no value' -k key --no-pfs=1 touch ran
		fails 64 "$program" 'option --verbose takes no value' -k key --verbose=1 touch ran
		fails 64 "$program" 'option --help takes no value' --help=1
		fails 64 "$program" 'option --nonsense is unknown' -k key --nonsense=1 touch ran
		fails 64 "$program" 'option -Z is unknown' -k key -fZ touch ran
		fails 64 "$program" 'option -o needs a value' -fo
		fails 64 "$program" 'option --timeout needs a value' --timeout
		fails 64 "$program" 'option -f is given twice' -k key -ff touch ran
		fails 64 "$program" 'option -o is given twice' -k key --timeout 3 -o3 touch ran
		fails 64 "$program" 'option --timeout is given twice' -k key -o 3 --timeout=3 touch ran
		fails 64 "$program" 'option -i takes a number' -k key -i0 touch ran
		for word in --req --require-pf --no-pf --no --time=3 --verb --he --vers; do
			fails 64 "$program" "option ${word%=*} is unknown" -k key $word touch ran
		done
		fails 64 "$program" 'option --time is unknown' -k key --time 3 touch ran
	done
	fails 64 "$ENC" 'option -k is given twice' -k key -k key touch ran
	fails 64 "$ENC" 'option -K is unknown' -K . touch ran
	fails 64 "$ENC" 'option --key-dir is unknown' --key-dir=. touch ran
}

@test "values that are not a number of seconds above 0, or not a count: 64" {
	local program option value
	for program in "$ENC" "$DEC"; do
		for option in -o -i --timeout --idle --linger; do
			for value in 0 0.0 -1 -0.5 '' x 5x '5 ' ' 5' nan inf -inf 1e400 0x10 . - 1,5; do
				fails 64 "$program" . -k key "$option" "$value" touch ran
			done
		done
		for value in 0 -1 65536 x ''; do
			fails 64 "$program" 'takes a number from 1 to 65535' -k key --max-connections "$value" touch ran
		done
		fails 64 "$program" . -k key --sandbox=perhaps touch ran
		fails 64 "$program" . -k key --sandbox= touch ran
		fails 64 "$program" . -k key --proxy-protocol=3 touch ran
		fails 64 "$program" . -k key --proxy-protocol= touch ran
	done
}

@test "-o takes fractions of a second" {
	local value
	for value in 0.2 .2 0.20; do
		fails 75 "$ENC" . -o $value -k key sleep 10
		fails 75 "$ENC" . --timeout=$value -k key sleep 10
	done
	hold dec "$DEC" -o 0.2 -k key -- touch ran
	ended 2 "${pids[-1]}"
	[ "$status" -eq 75 ]
	one_line dec.err spipe-dec
	[ ! -e ran ]
	exec 9>&-
}

@test "-o takes large values" {
	listen dec "$DEC" -o 1000000 -k key -- cat
	[ "$(printf hello | "$ENC" -o 86400000 -k key -- nc -N 127.0.0.1 "$port")" = hello ]
	statuses dec 5 0
}

@test "short and long options mean the same; -- ends them" {
	listen dec "$DEC" --no-pfs --no-keepalive --timeout=3 --key=key -- cat
	[ "$(printf hello | "$ENC" --no-pfs --no-keepalive --timeout 3 --key key nc -N 127.0.0.1 "$port")" = hello ]
	[ "$(printf hello | "$ENC" -fjo3 -kkey -- nc -N 127.0.0.1 "$port")" = hello ]
	statuses dec 5 0 0
	# Options after the command's name are the command's.
	listen dec2 "$DEC" -k key printf %s -f -k other --version
	[ "$("$ENC" -k key nc -N 127.0.0.1 "$port" </dev/null)" = -f-kother--version ]
	# A command whose name begins with a dash needs --.
	printf '#!/bin/sh\necho ran\n' >./-odd
	chmod 700 ./-odd
	listen dec3 env PATH="$PWD:$PATH" "$DEC" -k key -- -odd
	[ "$("$ENC" -k key nc -N 127.0.0.1 "$port" </dev/null)" = ran ]
}

@test "--help and --version go to stdout, with 0, and need no key" {
	local program
	for program in "$ENC" "$DEC"; do
		for option in -h --help; do
			"$program" $option >stdout 2>stderr.err
			[ ! -s stderr.err ]
			grep -q "${program##*/} \[-" stdout
			local long
			for long in key no-pfs require-pfs no-keepalive timeout fd-pass proxy-protocol idle linger sandbox \
				verbose version help; do
				grep -q -- "--$long" stdout
			done
		done
		for option in -v --version; do
			"$program" $option >stdout 2>stderr.err
			[ ! -s stderr.err ]
			grep -qE "^${program##*/} [0-9]+\.[0-9]+\.[0-9]+" stdout
		done
	done
	"$DEC" --help | grep -q -- --key-dir
	not grep -q -- --key-dir <("$ENC" --help)
}

@test "--help to a full disk is an error" {
	status=0
	"$ENC" --help >/dev/full 2>enc.err || status=$?
	[ "$status" -ne 0 ]
}

@test "a key that cannot be used: 78, with its name and the reason" {
	local program size
	mkdir directory
	for size in 0 1 31; do
		random $size short$size
	done
	ln -s nowhere dangling
	mkfifo fifo
	for program in "$ENC" "$DEC"; do
		fails 78 "$program" 'missing' -k missing touch ran
		fails 78 "$program" 'missing' -k ./no/such/missing touch ran
		fails 78 "$program" 'directory.*director' -k directory touch ran
		fails 78 "$program" 'short0.*(empty|short|32)' -k short0 touch ran
		fails 78 "$program" 'short1.*(short|32)' -k short1 touch ran
		fails 78 "$program" 'short31.*(short|32)' -k short31 touch ran
		fails 78 "$program" 'dangling' -k dangling touch ran
		fails 78 "$program" . -k '' touch ran
		fails 78 "$program" 'null' -k /dev/null touch ran
	done
}

@test "a key from a FIFO: in any pieces, but within the time limit" {
	listen dec "$DEC" -k key -- cat
	[ "$(printf hello | "$ENC" -k <(head -c 7 key; sleep 0.3; tail -c +8 key) nc -N 127.0.0.1 "$port")" = hello ]
	statuses dec 5 0
	mkfifo fifo
	exec 5<>fifo # a writer that says nothing
	local program
	for program in "$ENC" "$DEC"; do
		fails 75 "$program" 'key fifo: .*in time' -o 0.3 -k fifo touch ran
		"$program" -o 60 -k fifo touch ran </dev/null 2>program.err &
		sleep 0.3
		kill "$!"
		ended 2 "$!"
		[ "$status" -eq 143 ]
		one_line program.err "${program##*/}" 'key fifo: ended by signal 15'
		# the start of a key, and no more
		printf 'not even half of it' >&5
		fails 75 "$program" 'key fifo: .*in time' -o 0.3 -k fifo touch ran
	done
	exec 5>&-
	fails 78 "$ENC" 'key fifo: it is empty' -k fifo touch ran
}

# hashes PID: it has used a tenth of a second of the processor, which is more than its start takes.
hashes() {
	local stat
	read -r -a stat <"/proc/$1/stat"
	[ "${stat[13]}" -ge 10 ]
}

@test "a key file that is slow to read: -o and SIGTERM end the wait" {
	truncate -s 300G large
	local program
	for program in "$ENC" "$DEC"; do
		fails 75 "$program" 'key large: not read to its end in time' -o 0.3 -k large touch ran
		"$program" -o 60 -k large touch ran </dev/null 2>program.err &
		eventually 20 hashes "$!"
		kill "$!"
		if ! ended 5 "$!"; then
			kill -KILL "$!"
			return 1
		fi
		one_line program.err "${program##*/}" 'key large: ended by signal 15'
	done
}

@test "an unreadable key: 78" {
	chmod 000 other
	local drop=()
	[ "$(id -u)" -ne 0 ] || drop=(setpriv --bounding-set '-dac_override,-dac_read_search' --)
	status=0
	"${drop[@]}" "$ENC" -k other touch ran 2>enc.err </dev/null || status=$?
	[ "$status" -eq 78 ]
	one_line enc.err spipe-enc 'other.*[Pp]ermission denied'
	[ ! -e ran ]
}

@test "keys of 32 bytes and of megabytes" {
	random 3000000 big
	local name
	for name in key big; do
		listen "dec-$name" "$DEC" -k "$name" -- cat
		[ "$(printf hello | "$ENC" -k "$name" nc -N 127.0.0.1 "$port")" = hello ]
		[ "$(printf hello | exchange /dev/stdin /dev/stdout spipe -t "127.0.0.1:$port" -k "$name")" = hello ]
	done
}

@test "a key that others may read or write is warned about, and used" {
	local mode says
	listen dec "$DEC" -k key -- cat
	while read -r mode says; do
		cp key loose
		chmod "$mode" loose
		[ "$(printf hello | "$ENC" -k loose nc -N 127.0.0.1 "$port" 2>enc.err)" = hello ]
		[ "$(cat enc.err)" = "spipe-enc: key loose: $says, chmod 600 it" ]
	done <<-'EOF'
		640 readable by its group
		604 readable by everyone
		444 readable by everyone
		660 writable by its group
		664 writable by its group
		602 writable by everyone
		666 writable by everyone
	EOF
	for mode in 600 400 700; do
		chmod $mode loose
		[ "$(printf hello | "$ENC" -k loose nc -N 127.0.0.1 "$port" 2>enc.err)" = hello ]
		[ ! -s enc.err ]
	done
}

@test "a name without a slash is looked up in \$CREDENTIALS_DIRECTORY first" {
	mkdir credentials elsewhere
	cp key credentials/tunnel
	cp other tunnel
	cp other elsewhere/tunnel
	chmod 440 credentials/tunnel
	listen dec "$DEC" -k key -- cat
	export CREDENTIALS_DIRECTORY=$PWD/credentials
	# from there, and with no warning though the group may read it
	[ "$(printf hello | "$ENC" -k tunnel nc -N 127.0.0.1 "$port" 2>enc.err)" = hello ]
	[ ! -s enc.err ]
	# with a slash it is a path
	fails 77 "$ENC" . -k ./tunnel nc -N 127.0.0.1 "$port"
	fails 77 "$ENC" . -k elsewhere/tunnel nc -N 127.0.0.1 "$port"
	# not there: as a path
	[ "$(printf hello | "$ENC" -k key nc -N 127.0.0.1 "$port")" = hello ]
	# there, but unusable: an error, not the other one of that name
	: >credentials/key
	fails 78 "$ENC" 'key' -k key nc -N 127.0.0.1 "$port"
	unset CREDENTIALS_DIRECTORY
	[ "$(printf hello | "$ENC" -k key nc -N 127.0.0.1 "$port")" = hello ]
}

@test "no core dumps, no tracing: set before the key is read" {
	hold dec "$DEC" -o 60 -k key -- cat
	local pid=${pids[-1]}
	eventually 5 test -s dec.out
	# What is not dumpable belongs to root.
	if [ "$(id -u)" -ne 0 ]; then
		[ "$(stat -c %u "/proc/$pid/mem")" = 0 ]
	fi
	strace -f -o trace "$ENC" -k key true </dev/null || true
	if [ -s trace ]; then
		local dump key
		dump=$(grep -n 'prctl(PR_SET_DUMPABLE, SUID_DUMP_DISABLE' trace | head -n 1 | cut -d : -f 1)
		key=$(grep -nE 'open(at)?\(.*"key"' trace | head -n 1 | cut -d : -f 1)
		[ "$dump" -lt "$key" ]
	fi
	exec 9>&-
}

@test "no key is given: the message shows where the options ended" {
	run -64 --separate-stderr "$ENC" -x 1 -k key -- true </dev/null
	echo "$stderr" >enc.err
	one_line enc.err spipe-enc 'no key is given \(-k\), and the command would be 1; see --help'
	run -64 --separate-stderr "$DEC" -f </dev/null
	echo "$stderr" >dec.err
	one_line dec.err spipe-dec 'no key is given \(-k or -K\); see --help'
}

@test "--help and --version that cannot be written: 74, with a message" {
	for option in --help --version; do
		run -74 --separate-stderr sh -c '"$@" >/dev/full' sh "$ENC" "$option"
		echo "$stderr" >enc.err
		one_line enc.err spipe-enc 'standard output: No space left'
	done
}

@test "options: limits that are not a time" {
	local value
	for value in '' 0 0.0 -1 1s 1,5 1.2.3 . nan inf 1e3 0x10 ' 1' 99999999999999999999; do
		run -64 "$DEC" -k key -i "$value" -- cat </dev/null
		run -64 "$ENC" -k key --linger "$value" -- cat </dev/null
	done
	run -64 "$DEC" -k key -i 1 -i 1 -- cat </dev/null
	run -64 "$ENC" -k key --linger 1 --linger 2 -- cat </dev/null
}
