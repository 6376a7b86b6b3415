# The manual pages, --help, README.md, CONTRIBUTING.md and the code say the same, and the commands that they show work.

# shellcheck disable=SC2030,SC2031 # each test is a subshell of its own

load ../helpers/lib

setup() {
	setup_test
	export PATH=$BUILD:$PATH
	ROOT=$(cd "$TESTS/.." && pwd)
	PAGE=$ROOT/man/spipe-enc.1
	README=$ROOT/README.md
	RECIPES=$ROOT/man/spipe-filters.7
}

# section NAME: the manual page's section of that name, mdoc source.
section() {
	awk -v name=".Sh $1" '/^\.Sh /{ on = $0 == name } on' "$PAGE"
}

# same A B: two files hold the same words, whatever their order.
same() {
	[ -s "$1" ] && diff <(sort -u "$1") <(sort -u "$2")
}

@test "manual pages are clean under mandoc -Tlint" {
	# Which other manuals are installed and indexed does not matter.
	mandoc -Tlint "$ROOT"/man/*.[1578] 2>&1 |
		grep -v -e 'referenced manual not found' -e 'outdated mandoc.db' >lint.err || true
	[ ! -s lint.err ]
}

@test "options: manual page and --help list the same, and the programs take them" {
	section OPTIONS | sed -n 's/^\.It //p' | grep -oE '(^|[ ,])Fl -?[A-Za-z-]+|, -[a-z-]+' |
		sed -E 's/^[ ,]*(Fl )?/-/; s/^--*([a-z-]{2,})/--\1/' | sort -u >man.words
	for program in "$ENC" "$DEC"; do
		"$program" --help >help.out
		sed -nE 's/^  (    |-., )(--[a-z-]+).*/\1 \2/p' help.out | tr -d ',' | tr -s ' ' '\n' |
			grep . | sort -u >help.words
		cp man.words expected
		[ "$program" = "$DEC" ] || sed -i -e '/^-K$/d' -e '/^--key-dir$/d' -e '/^--max-strangers/d' expected
		same expected help.words
		while read -r word; do
			run "$program" "$word" </dev/null
			[[ $output != *[Uu]nknown* && $output != *unrecognized* && $output != *invalid\ option* ]]
		done <expected
	done
}

@test "options: the synopsis is the same in the manual page and in --help" {
	for program in spipe-enc spipe-dec; do
		mandoc -Tascii -Owidth=500 "$PAGE" | sed 's/.\x08//g' | sed -n '/^SYNOPSIS/,/^DESCRIPTION/p' |
			tr -s ' \n' ' ' | sed -E "s/.*($program \[)/\1/; s/\]\] .*/]]/" >man.line
		"$BUILD/$program" --help | tr -s ' \n' ' ' | sed -E 's/^usage: //; s/\]\] .*/]]/' >help.line
		[ -s man.line ]
		# Options without a letter are in that of the manual page only.
		for word in $("$BUILD/$program" --help | sed -nE 's/^      (--[a-z-]+).*/\1/p'); do
			grep -q -e "\[${word}[] =]" man.line
		done
		sed -i 's/ \[--[^]]*\]//g' man.line
		diff man.line help.line
	done
}

# commands FILE: its command lines, each in one line, without mdoc's escapes.
commands() {
	sed -e ':again' -e '/\\e$/{N;s/ *\\e\n */ /;b again' -e '}' -e 's/\\e/\\/g' "$1"
}

@test "every option in the command lines of README.md and the manual pages exists" {
	for file in "$README" "$PAGE" "$RECIPES"; do
		# shellcheck disable=SC2016 # `...` is markdown's
		commands "$file" | grep -v -e '^\.' -e '----' | # nor the diagram
			grep -oE 'spipe-(enc|dec)( -[^ ,`|'"'"']+( [^-`|'"'"' ][^ `|'"'"']*)?)+' >lines
		[ "$(wc -l <lines)" -ge 3 ]
		while read -r program words; do
			for word in $words; do
				[[ $word == -* ]] || continue
				"$BUILD/$program" --help | grep -qE -e "(^|[ ,])$word([ ,=[]|\$)"
			done
		done <lines
	done
}

@test "spipe-filters(7) says what becomes of each of spiped's options" {
	{ spiped || spipe || true; } >usage 2>&1
	{
		grep -oE -e '--[a-z]+' usage
		# [-DFj] is three of them.
		grep -oE '(^|[^[:alnum:]-])-[A-Za-z]+' usage | tr -cd 'A-Za-z\n' | grep -o . | sed 's/^/-/'
		printf '%s\n' -b -1 # in spiped 1.6.3
	} | sort -u >theirs
	[ "$(wc -l <theirs)" -ge 18 ]
	sed -n '/^\.Sh COMING FROM SPIPED/,/^\.Sh SEE/p' "$RECIPES" | sed -n 's/^\.It Fl //p' |
		sed -E 's/ Ar [a-z]+//g; s/ Fl / /g; s/,//g' | tr -s ' ' '\n' | sed 's/^/-/' >column
	while read -r option; do
		grep -qxF -e "$option" column || {
			echo "missing: $option"
			return 1
		}
	done <theirs
}

@test "exit statuses: the manual page lists those that the code uses" {
	section 'EXIT STATUS' | sed -n 's/^\.It \([0-9]*\)$/\1/p' >man.words
	{
		echo 0
		grep -ohE '\bEX_[A-Z]+' "$ROOT"/common/*.[ch] "$ROOT"/filters/*.c | sort -u |
			{ while read -r name; do
				awk -v name="$name" '$1 == "#define" && $2 == name { print $3 }' /usr/include/sysexits.h
			done; }
	} | grep -vx 0 >code.words
	sed -i '/^0$/d' man.words
	same code.words man.words
}

@test "environment: the manual page lists what the code reads and sets" {
	section ENVIRONMENT | sed -n 's/^\.It Ev //p' | tr -d ',' | tr -s ' ' '\n' >man.words
	grep -ohE '"(SPIPE_(KEY|PEER|LOCAL)(_ADDR|_PORT)?|CREDENTIALS_DIRECTORY|LISTEN_(FDS|PID)|NOTIFY_SOCKET|JOURNAL_STREAM|REMOTE_[A-Z]+|TCP(REMOTE|LOCAL)[A-Z]+|SOCAT_[A-Z]+)"' \
		"$ROOT"/common/*.c "$ROOT"/filters/*.c | tr -d '"' >code.words
	same code.words man.words
	# Nothing is read that the pattern above does not know.
	grep -ohE '(secure_)?getenv\("[A-Z_]+"' "$ROOT"/common/*.c "$ROOT"/filters/*.c |
		grep -oE '[A-Z_]{3,}' | sort -u >read.words
	[ -z "$(comm -23 read.words <(sort -u man.words))" ]
}

@test "log: the manual page lists the journal fields and results that the code uses" {
	section LOG | grep -oE 'SPIPE_[A-Z_]+=' >man.words
	grep -ohE 'SPIPE_[A-Z_]+=' "$ROOT/common/report.c" >code.words
	same code.words man.words
	for word in clean usage target system lost timeout tampered refused limit key terminated; do
		section LOG | grep -q "^\.Ql $word\\b"
		grep -q "\"$word\"" "$ROOT/common/report.c"
	done
}

@test "log: the journal's catalog explains each MESSAGE_ID" {
	sed -n 's/^-- //p' "$ROOT/units/spipe-filters.catalog" >catalog.words
	grep -ohE '"[0-9a-f]{32}"' "$ROOT"/common/report.[ch] | tr -d '"' >code.words
	same code.words catalog.words
	[ "$(sort code.words | uniq -d)" = '' ]
}

@test "key rules: the manual page lists the words that the code knows" {
	section KEYS | sed -n 's/^\.It Cm \([a-z-]*\).*/\1/p' >man.words
	for word in $(<man.words); do
		grep -q "\"$word\"" "$ROOT/common/rules.c"
	done
	[ "$(wc -l <man.words)" -eq 5 ]
}

# map FILE: the paths in the first column of the tables in its section "The tree".
map() {
	# shellcheck disable=SC2016 # `...` is markdown's
	sed -n '/^## The tree/,$p' "$1" | sed '2,${/^## /,$d}' | sed -n 's/^| \(`[^|]*\) |.*/\1/p' |
		grep -o '`[^`]*`' | tr -d '`' | sed 's/\(.*\)\[ch\]$/\1c\n\1h/'
}

@test "each file has one line in a map: CONTRIBUTING's or the tests'" {
	cd "$ROOT"
	if ! git ls-files -c -o --exclude-standard >"$BATS_TEST_TMPDIR/files" 2>/dev/null; then
		find . -path ./.git -prune -o -path './build*' -prune -o ! -type d -printf '%P\n' \
			>"$BATS_TEST_TMPDIR/files"
	fi
	map CONTRIBUTING.md | grep -vx 'tests/' >"$BATS_TEST_TMPDIR/map"
	map tests/README.md | sed 's,^,tests/,' >>"$BATS_TEST_TMPDIR/map"
	cd "$BATS_TEST_TMPDIR"
	grep '/$' map >folders || true
	while read -r file; do
		[ -e "$ROOT/$file" ] || continue # removed, and not committed yet
		[[ $file != *__pycache__* ]] || continue
		# A folder's line covers all files in it.
		while read -r folder; do
			[[ $file != "$folder"* ]] || continue 2
		done <folders
		echo "$file"
	done <files >listed
	grep -v '/$' map | sort >mapped
	diff <(sort listed) mapped
	[ -z "$(sort mapped | uniq -d)" ]
	while read -r folder; do
		[ -d "$ROOT/$folder" ]
	done <folders
}

# typed FILE PATTERN [SED-EXPRESSION...]: print FILE's first command line with this text, with the given
# changes and every name of a host ours.
typed() {
	local line change
	line=$(commands "$1" | grep -F -e "$2" | head -n 1)
	[ -n "$line" ] || return
	line=${line#client$ }
	line=${line#server$ }
	line=${line//server.example/127.0.0.1}
	for change in "${@:3}"; do
		line=$(sed -E "$change" <<<"$line")
	done
	echo "$line"
}

listening() {
	[ -n "$(ss -Hltn "sport = :$1")" ]
}

# serve_banner: a mail server's greeting on a free port, which goes to $service.
serve_banner() {
	service=$(free_port)
	printf '220 server.example ESMTP Postfix\r\n' >banner
	background socat "TCP-LISTEN:$service,bind=127.0.0.1,fork,reuseaddr" OPEN:banner 2>service.err
	eventually 10 listening "$service"
}

@test "README.md: the session at the top" {
	command -v systemd-socket-activate >/dev/null || skip "needs systemd-socket-activate"
	serve_banner
	port=$(free_port)
	run -0 typed "$README" 'head -c 32 /dev/urandom > mail.key' 's/#.*//' 's/^\$ //'
	bash -c "$output"
	run -0 typed "$README" 'server$ systemd-socket-activate' "s/8025/$port/" "s/127.0.0.1:25/127.0.0.1:$service/"
	background bash -c "exec $output" 2>server.err
	eventually 10 listening "$port"
	run -0 typed "$README" 'client$ spipe-enc' "s/8025/$port/"
	run -0 bash -c "$output </dev/null"
	[[ $output == '220 server.example ESMTP Postfix'* ]]
}

@test "spipe-filters(7): a web server, with socat in front of the client" {
	command -v systemd-socket-activate >/dev/null || skip "needs systemd-socket-activate"
	random 32 http.key
	mkdir web
	random 3000000 web/file
	service=$(free_port)
	background /usr/bin/python3 -m http.server -b 127.0.0.1 -d web "$service" >http.out 2>http.err
	far=$(free_port)
	near=$(free_port)
	run -0 typed "$RECIPES" "spipe-dec -k http.key" "s/8080/$far/" "s/127.0.0.1:80/127.0.0.1:$service/"
	background bash -c "exec $output" 2>server.err
	run -0 typed "$RECIPES" 'spipe-enc -k http.key' "s/8080/$far/" "s/8081/$near/"
	background bash -c "exec $output" 2>client.err
	eventually 10 listening "$service"
	eventually 10 listening "$far"
	eventually 10 listening "$near"
	curl -sS --max-time 20 -o got "http://127.0.0.1:$near/file"
	cmp got web/file
}

@test "spipe-filters(7): Redis, reached in each of the ways shown" {
	command -v systemd-socket-activate >/dev/null || skip "needs systemd-socket-activate"
	random 32 redis.key
	background redis-server --port 0 --unixsocket "$PWD/redis.sock" --save '' >redis.out 2>redis.err
	eventually 10 test -S redis.sock
	far=$(free_port)
	run -0 typed "$RECIPES" 'spipe-dec -k redis.key' "s/8379/$far/" "s,/run/redis/redis.sock,$PWD/redis.sock,"
	background bash -c "exec $output" 2>server.err
	eventually 10 listening "$far"

	run -0 typed "$RECIPES" '-l /run/redis-far.sock' "s/8379/$far/" "s,/run/redis-far.sock,$PWD/far.sock,"
	background bash -c "exec $output" 2>client.err
	eventually 10 test -S far.sock
	[ "$(redis-cli -s far.sock set note value)" = OK ]

	sed -n '/^One connection, without/,/^\.Ed/p' "$RECIPES" >once
	[ "$(grep -c 8379 once)" -eq 4 ]
	for start in 'spipe-enc -k redis.key -t server' 'spipe-enc -k redis.key nc -N server' \
		'spipe-enc -k redis.key socat' 'tcpclient'; do
		run -0 typed once "$start" "s/8379/$far/"
		run -0 bash -c "printf 'get note\r\n' | timeout -s KILL 20 $output"
		[ "$output" = $'$5\r\nvalue\r' ]
	done
}

@test "spipe-filters(7): a local port in front of a remote mail server" {
	command -v systemd-socket-activate >/dev/null || skip "needs systemd-socket-activate"
	serve_banner
	random 32 mail.key
	far=$(free_port)
	near=$(free_port)
	run -0 typed "$RECIPES" "spipe-dec -k mail.key" "s/8025/$far/" "s/127.0.0.1:25/127.0.0.1:$service/"
	background bash -c "exec $output" 2>server.err
	run -0 typed "$RECIPES" '127.0.0.1 2525' "s/8025/$far/" "s/2525/$near/"
	background bash -c "exec $output" 2>client.err
	eventually 10 listening "$far"
	eventually 10 listening "$near"
	run -0 nc -N 127.0.0.1 "$near" </dev/null
	[[ $output == '220 server.example ESMTP Postfix'* ]]
}

@test "spipe-filters(7): the example of key rules is taken" {
	cp key alice.key
	sed -n '/^expires /,/^\.Ed/p' "$RECIPES" | sed '/^\.Ed/d' >alice.key.conf
	[ "$(wc -l <alice.key.conf)" -eq 4 ]
	# The rules forbid this client's address, and are understood: 77 and not 78.
	sed -i 's/^expires.*/expires 2999-12-31/' alice.key.conf
	listen server "$DEC" -k alice.key true
	run "$ENC" -k key nc -N 127.0.0.1 "$port" </dev/null
	statuses server 10 77
}

@test "README.md: its spipetab lines make units" {
	grep -oE '(mail-in +dec|mail-out +enc) .*' "$README" >spipetab
	[ "$(wc -l <spipetab)" -eq 2 ]
	[ -x "$BUILD/spipe-generator" ] || skip 'built without systemd'
	mkdir units
	SPIPETAB=$PWD/spipetab run -0 "$BUILD/spipe-generator" units units units
	[ -z "$(grep -v ': warning: no key file /etc/spipe/' <<<"$output")" ]
	for name in mail-in mail-out; do
		[ -e "units/spipe-$name.socket" ]
		[ -e "units/spipe-$name@.service" ]
	done
}

@test "CONTRIBUTING.md names the files of common/ that a port to another system has to change" {
	sed -n '/^## Porting/,/^## Style/p' "$ROOT/CONTRIBUTING.md" | grep '^| `' | cut -d '|' -f 2 | grep -oE '[a-z]+\.c' >table.words
	(cd "$ROOT/common" && grep -lE '<linux/|<sys/(prctl|signalfd|syscall)|memfd_create|POLLRDHUP|/proc/self' ./*.[ch]) |
		sed 's|^\./||' >code.words
	same code.words table.words
}
