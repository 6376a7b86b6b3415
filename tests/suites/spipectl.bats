#!/usr/bin/env bats
# spipectl, as far as it needs no service manager.

load ../helpers/lib

setup() {
	setup_test
	CTL=$BUILD/spipectl
	[ -x "$CTL" ] || skip 'built without systemd'
}

# fingerprint FILE: what the manual page says of it.
fingerprint() {
	/usr/bin/python3 - "$1" <<-'EOF'
		import hashlib, hmac, sys
		key = hashlib.sha256(open(sys.argv[1], "rb").read()).digest()
		mac = hmac.new(key, b"spipe key id", hashlib.sha256).digest()
		digits = "%012d" % (int.from_bytes(mac[:8], "big") % 10**12)
		print("-".join(digits[i:i + 3] for i in range(0, 12, 3)))
	EOF
}

@test "key new: 32 bytes for the owner only, in a directory for the owner only" {
	umask 0
	run -0 "$CTL" key new new/mail.key
	[ "$output" = "$(fingerprint new/mail.key)  new/mail.key" ]
	[ "$(stat -c '%a %s' new/mail.key)" = '600 32' ]
	[ "$(stat -c %a new)" = 700 ]
	run -0 "$CTL" key new second.key
	not cmp -s second.key new/mail.key
	# both programs take it
	listen server "$DEC" -k new/mail.key cat
	[ "$("$ENC" -k new/mail.key -t "127.0.0.1:$port" <<<hello)" = hello ]
}

@test "key new: an existing file is not replaced, a misspelt path not made" {
	cp key before
	run -73 "$CTL" key new key
	[ "$output" = 'spipectl: cannot make key: File exists' ]
	cmp key before
	ln -s elsewhere link
	run -73 "$CTL" key new link
	[ ! -e elsewhere ]
	run -73 "$CTL" key new a/b/c
	[ ! -e a ]
}

@test "key new: a file that cannot be written to its end is removed" {
	mkdir full
	mount_tmpfs() { mount -t tmpfs -o size=4k,nr_inodes=3 none full && head -c 4096 /dev/zero >full/filler; }
	export -f mount_tmpfs
	[ "$(id -u)" -eq 0 ] && unshare --mount true 2>/dev/null || skip 'needs root and mounts of its own'
	# shellcheck disable=SC2016
	run -74 unshare --mount bash -c 'mount_tmpfs && "$0" key new full/key; status=$?; ls full; exit $status' "$CTL"
	[ "$output" = "$(printf '%s\n' 'spipectl: cannot write full/key: No space left on device' filler)" ]
}

@test "key id: the fingerprint that the manual page describes, for every file" {
	# the known answer, so that no release changes it
	printf 'not a secret, but 32 bytes long.' >known
	random 100000 long
	run -0 "$CTL" key id known key long
	[ "${lines[0]}" = '788-010-162-657  known' ]
	[ "${lines[1]}" = "$(fingerprint key)  key" ]
	[ "${lines[2]}" = "$(fingerprint long)  long" ]
}

@test "key id: what is wrong with a key" {
	chmod 644 key
	run -0 --separate-stderr "$CTL" key id key
	[ "$stderr" = 'spipectl: key key: readable by everyone, chmod 600 it' ]
	head -c 31 key >short
	run -78 --separate-stderr "$CTL" key id short absent other
	[ "$output" = "$(fingerprint other)  other" ]
	[ "${stderr_lines[0]}" = 'spipectl: key short: it is shorter than 32 bytes' ]
	[ "${stderr_lines[1]}" = 'spipectl: key absent: No such file or directory' ]
}

@test "usage errors, --help, --version, and an output that fails" {
	local words
	for words in '' key 'key new' 'key new a b' 'key new -x' 'key id' 'key id -x' 'key old a' nonsense -x; do
		# shellcheck disable=SC2086
		run -64 --separate-stderr "$CTL" $words
		[ -z "$output" ]
		one_line <(echo "$stderr") spipectl 'see --help$'
	done
	run -0 "$CTL" --help
	[[ $output == usage:* ]]
	[ "${#lines[@]}" -le 24 ]
	[ "$(wc -L <<<"$output")" -le 80 ]
	run -0 "$CTL" --version
	[[ $output == 'spipectl '* ]]
	run -74 bash -c "'$CTL' key id key >/dev/full"
	[ "$output" = 'spipectl: standard output cannot be written' ]
}

@test "the synopsis is the same in the manual page and in --help" {
	mandoc -Tascii -Owidth=500 "$TESTS/../man/spipectl.8" | sed 's/.\x08//g' |
		sed -n '/^SYNOPSIS/,/^DESCRIPTION/p' | sed -n 's/^ *spipectl //p' >man.lines
	"$CTL" --help | sed -nE 's/^(usage: |       )spipectl //p' >help.lines
	[ -s man.lines ]
	diff man.lines help.lines
}
