#!/usr/bin/env bats
# The completions for bash, zsh and fish: what is suggested, and real shells at a terminal that take it.
# shellcheck disable=SC2016 # the shells' own code

load ../helpers/lib

setup() {
	[ -x "$BUILD/spipectl" ] || skip 'built without systemd'
	setup_test
	PATH=$BUILD:$PATH
	SOURCES=$(cd "$TESTS/../completions" && pwd)
	printf '%s\n' '# a comment' ' mail dec 8025 25 key' '' 'other enc 8026 h:1 key' >tab
	export SPIPETAB=$PWD/tab
	mkdir keys.d
	touch mine.key
	for shell in bash zsh fish; do
		sed "s,@LIBDIR@,$SOURCES," "$SOURCES/spipe.$shell" >"spipe.$shell"
	done
}

# suggests EXPECTED WORD...: these words, one to a line, for what comes next.
suggests() {
	local expected=$1
	shift
	diff <("$SOURCES/complete" "$@" | cut -f 1 | tr '\n' ' ') <(echo -n "${expected:+$expected }")
}

@test "completions: the options of --help, all of them, with what they are for" {
	for program in spipe-enc spipe-dec; do
		"$program" --help | sed -nE 's/^  (    |-., )(--[a-z-]+).*/\1 \2/p' | grep -oE -e '--?[A-Za-z-]+' | sort >expected
		[ "$(wc -l <expected)" -ge 25 ]
		"$SOURCES/complete" $program - | cut -f 1 | grep -v = | sort >suggested
		echo --sandbox >>suggested # needs a value
		diff expected <(sort suggested)
		[ -z "$(comm -23 <("$program" --help | grep -oE -e '--sandbox=[a-z]+' | sort -u) <("$SOURCES/complete" $program - | cut -f 1 | sort))" ]
	done
	"$SOURCES/complete" spipe-enc - | grep -xF -- $'--key\tkey file, 32 bytes or more'
	[ "$("$SOURCES/complete" spipe-enc - | grep -cxE -e '--proxy-protocol(=[12])?')" -eq 3 ]
	# nothing that only continues a description
	diff <("$SOURCES/complete" spipectl - | cut -f 1) <(printf '%s\n' -v --version -h --help)
}

@test "completions: the subcommands of spipectl --help, and the options of each" {
	spipectl --help | sed -nE 's/^  ([a-z][a-z-]+).*/\1/p' | uniq >expected
	[ "$(wc -l <expected)" -ge 5 ]
	diff expected <("$SOURCES/complete" spipectl '')
	while read -r command; do
		spipectl --help | grep "^  $command" | sed 's/   .*//' | grep -oE '(^|[[ ])--?[a-z-]*' | tr -d '[ ' | grep '^-' | sort >expected.options || true
		diff expected.options <("$SOURCES/complete" spipectl "$command" - | sort)
	done <expected
}

@test "completions: what an option takes, and the other arguments" {
	suggests @file spipe-enc -k ''
	suggests @file spipe-dec -f --key ''
	suggests @directory spipe-dec -K ''
	suggests '' spipe-enc -t ''
	suggests @command spipe-enc -k a -t b ''
	suggests @file spipe-enc -k a nc ''
	suggests 'new id' spipectl key ''
	suggests @file spipectl key new ''
	suggests @file spipectl key id a ''
	suggests @file spipectl check ''
	suggests 'mail other' spipectl check --show ''
	suggests 'mail other' spipectl probe ''
	suggests @file spipectl probe -k ''
	suggests '' spipectl probe -o ''
	suggests '' spipectl apply ''
	suggests '' spipectl nonsense ''
	suggests '' ./no-such-program ''
	SPIPETAB=nowhere suggests '' spipectl probe ''
	printf '#!/bin/sh\n[ "$1" != list-units ] || echo mail.service loaded active running Mail\n' >systemctl
	chmod +x systemctl
	PATH=$PWD:$PATH suggests mail.service spipectl from-spiped ''
}

# type_into SHELL...: start it at a terminal, with what is typed on standard input; wait for ./done.
type_into() {
	timeout -s KILL 60 /usr/bin/python3 -c '
import os, pty, select, sys
typed = sys.stdin.buffer.read()
pid, terminal = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm"
    os.execvp(sys.argv[1], sys.argv[1:])
while typed or not os.path.exists("done"):
    readable, writable, _ = select.select([terminal], [terminal] if typed else [], [], 0.1)
    if readable:
        sys.stdout.buffer.write(os.read(terminal, 65536))
    if writable:
        typed = typed[os.write(terminal, typed[:1]):]
os.kill(pid, 9)
' "$@" >screen
}

# completed SHELL...: the shell has the programs replaced by something that writes down its arguments.
completed() {
	printf '%b\n' 'spipe-enc --sandbox=re\t' 'spipe-dec -k mi\t -- pri\tf' 'spipe-dec --key-d\tke\t' 'spipectl pr\tot\t' \
		'spipectl ch\t--sh\tma\t' 'spipectl key n\tmi\t' ': >done' | type_into "$@"
	diff <(sed 's,/*$,,' said) - <<-'END'
		--sandbox=require
		-k mine.key -- printf
		--key-dir keys.d
		probe other
		check --show mail
		key new mine.key
	END
}

@test "completions: bash at a terminal" {
	[ -e /usr/share/bash-completion/bash_completion ] || skip 'needs bash-completion'
	cat >rc <<-'END'
		. /usr/share/bash-completion/bash_completion
		. ./spipe.bash
		for program in spipe-enc spipe-dec spipectl; do
			eval "$program() { echo \"\$*\" >>said; }"
		done
	END
	completed bash --noprofile --rcfile rc -i
}

@test "completions: zsh at a terminal" {
	command -v zsh >/dev/null || skip 'needs zsh'
	mkdir functions
	cp spipe.zsh functions/_spipe
	cat >.zshrc <<-'END'
		fpath=($PWD/functions $fpath)
		autoload -U compinit && compinit -u -d $PWD/dump
		for program in spipe-enc spipe-dec spipectl; do
			eval "$program() { echo \"\$*\" >>said }"
		done
	END
	ZDOTDIR=$PWD completed zsh -i
}

@test "completions: fish at a terminal" {
	command -v fish >/dev/null || skip 'needs fish'
	cat >rc <<-'END'
		source spipe.fish
		for program in spipe-enc spipe-dec spipectl
			eval "function $program; echo \$argv >>said; end"
		end
	END
	HOME=$PWD completed fish --no-config --init-command 'source rc' -i
}
