#!/usr/bin/env bats
# spipe-generator by hand: what it makes of a line, and what it says of a wrong one.
# shellcheck disable=SC1003,SC2016,SC2258 # odd text is what this is about

load ../helpers/lib

setup() {
	setup_test
	GENERATOR=$BUILD/spipe-generator
	[ -x "$GENERATOR" ] || skip "built without systemd"
	mkdir out early late
	unset SYSTEMD_SCOPE
	bad=() messages=()
}

# generate LINE...: run the generator on a table of these lines; $status, and messages in ./err. Few of their
# keys are there: warnings go to ./warnings.
generate() {
	printf '%s\n' "$@" >tab
	rm -rf out
	mkdir out
	status=0
	SPIPETAB=$PWD/tab "$GENERATOR" out early late 2>messages || status=$?
	grep ': warning: ' messages >warnings || true
	grep -v ': warning: ' messages >err || true
}

# has FILE LINE...: FILE holds each LINE, once.
has() {
	local file=$1 line
	shift
	for line; do
		if [ "$(grep -Fxc -e "$line" "$file")" -ne 1 ]; then
			printf 'not in %s once: %s\n' "$file" "$line"
			cat "$file"
			return 1
		fi
	done
}

# lacks FILE REGEX...: FILE holds no line that matches.
lacks() {
	local file=$1 regex
	shift
	for regex; do
		if grep -e "$regex" "$file"; then
			return 1
		fi
	done
}

# wrong MESSAGE LINE: the line is wrong, and said to be so with MESSAGE (a regex). All of a test are in one table, which
# all_wrong has the generator read.
wrong() {
	messages+=("$1")
	bad+=("$2")
}

# all_wrong: each line is reported with its number and its message, makes a socket that says so and cannot be started,
# and nothing else; the good ones before and after them are not hurt.
all_wrong() {
	local i line file text said=()
	[ ${#bad[@]} -gt 0 ]
	generate 'before dec 7001 2 k' "${bad[@]}" 'after dec 7002 4 k'
	[ "$status" -eq 1 ]
	mapfile -t said <err
	for i in "${!bad[@]}"; do
		[[ ${said[i]-} =~ ^"spipe-generator: $PWD/tab:$((i + 2)): ".*(${messages[i]}) ]] || {
			printf 'said of %s: %s\n' "${bad[i]}" "${said[i]-}"
			return 1
		}
	done
	[ ${#said[@]} -eq ${#bad[@]} ]
	# the socket of each, by the number of its line
	declare -A socket=()
	while IFS=: read -r file text line; do
		socket[$line]=${file#out/}
	done < <(grep -Ho '/tab:[0-9]*' out/*.socket)
	[ ${#socket[@]} -eq ${#bad[@]} ]
	for i in "${!bad[@]}"; do
		file=out/${socket[$((i + 2))]}
		text=$(<"$file")$'\n'
		line=${said[i]#spipe-generator: }
		[[ $text == *$'\n'"Description=${line//%/%%}"$'\n'* && $text == *$'\nExecStartPre=false\n'* ]] || {
			printf 'for %s, %s is:\n%s' "${bad[i]}" "$file" "$text"
			return 1
		}
	done
	diff <(find out ! -type d -printf '%P\n' | sort) <({
		for file in "${socket[@]}"; do
			printf '%s\n' "sockets.target.wants/$file" "$file" "${file%.socket}@.service"
		done
		for file in before after; do
			printf '%s\n' "sockets.target.wants/spipe-$file.socket" "spipe-$file.socket" "spipe-$file@.service" \
				"spipe-$file@0.service.d/20-exit-idle.conf"
		done
	} | sort)
}

# The ExecStart= of the first instance of tunnel NAME, without the path and the program's name.
program() {
	sed -n 's/^ExecStart=[^ ]*\/spipe-...  *\(.*\)/\1/p' "out/spipe-$1@0.service.d/20-exit-idle.conf"
}

# watched: what is watched for all tunnels, beside /etc/spipe.
watched() {
	cat out/renew-spipe-*.path | sed -n 's/^PathChanged=//p' | sort | tr '\n' ' '
}

@test "TCP to TCP for spipe-dec" {
	generate 'mail-in dec [::]:8025 127.0.0.1:25 mail.key maxconn=201,pfs=require'
	[ "$status" -eq 0 ]
	[ ! -s err ]
	[ "$(readlink out/sockets.target.wants/spipe-mail-in.socket)" = ../spipe-mail-in.socket ]
	has out/spipe-mail-in.socket 'ListenStream=[::]:8025' Accept=no Service=spipe-mail-in@0.service \
		'ExecStopPre=-systemctl stop "spipe-mail-in@*.service"' Wants=renew-spipe.path \
		TriggerLimitIntervalSec=0 DeferAcceptSec=5 FreeBind=yes Slice=spipe.slice "SourcePath=$PWD/tab" \
		'ExecStartPost=-install -D -m 644 -t /run/spipe /run/systemd/generator/spipe-mail-in.socket /run/systemd/generator/spipe-mail-in@.service'
	lacks out/spipe-mail-in.socket ^MaxConn
	has out/spipe-mail-in@.service Type=notify Sockets=spipe-mail-in.socket 'ExecReload=kill -HUP $MAINPID' \
		Restart=on-failure StartLimitIntervalSec=0 'After=renew-spipe.service renew-spipe@mail-in.service' \
		LoadCredential=mail.key:/etc/spipe/mail.key SetCredential=mail.key:missing \
		LoadCredential=mail.key.conf:/etc/spipe/mail.key.conf 'SetCredential=mail.key.conf:#' \
		IPAddressDeny=any IPAddressAllow=127.0.0.1 \
		'RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6'
	grep -qE '^ExecStart=/.*/spipe-dec -n 201 --max-strangers=200 --max-strangers-per-source=50 -g -k mail.key -t "127.0.0.1:25"$' \
		out/spipe-mail-in@.service
	[ "$(program mail-in)" = '-n 201 --max-strangers=200 --max-strangers-per-source=50 --exit-idle=300 -g -k mail.key -t "127.0.0.1:25"' ]
	# renew-spipe.path watches /etc/spipe anyway
	[ -z "$(find out -name 'renew-spipe*')" ]
	[ ! -e out/spipe-mail-in.path ]
	# how long it may take to start: 10-hardening.conf
	lacks out/spipe-mail-in@.service ^PrivateNetwork ^Timeout
	[ -z "$(ls -A early)$(ls -A late)" ]
}

@test "accept=yes: a service per connection" {
	generate 'a dec 1 2 k accept=yes,maxconn=201' 'b enc /b host:2 k accept=yes' \
		'c dec 3 2 k accept=yes,maxconn=9,persource=2' 'd dec 4 2 k accept=yes,persource=0' \
		'e enc 5 2 k accept=yes,persource=3' 'f dec 6 2 k accept=no'
	[ "$status" -eq 0 ]
	has out/spipe-a.socket Accept=yes MaxConnections=201 MaxConnectionsPerSource=51 TriggerLimitIntervalSec=0 \
		PollLimitIntervalSec=0
	lacks out/spipe-a.socket ^Service ^ExecStop path
	[ -z "$(find out -name 'renew-spipe*')" ]
	lacks out/spipe-a@.service ^Sockets ^ExecReload ^Restart ^After
	grep -qE '^ExecStart=/[^ ]*/spipe-dec -k k -t "127.0.0.1:2"$' out/spipe-a@.service
	has out/spipe-a@.service TasksMax=18 MemoryMax=64M
	[ ! -e out/spipe-a.path ]
	[ ! -e out/spipe-a@0.service.d ]
	has out/spipe-b.socket MaxConnections=200
	lacks out/spipe-b.socket PerSource
	has out/spipe-c.socket MaxConnections=9 MaxConnectionsPerSource=2
	lacks out/spipe-d.socket PerSource
	has out/spipe-e.socket MaxConnectionsPerSource=3
	has out/spipe-f.socket Accept=no
}

@test "limits of the program, and of what all its connections may use" {
	generate 'a dec 1 2 k maxconn=10,strangers=5,persource=3,exit-idle=2.5' 'b dec 2 2 k persource=0' \
		'c dec 3 2 k strangers=20' 'd enc 4 2 k maxconn=10' 'e dec 5 exec:/bin/cat k maxconn=10,strangers=5'
	[ "$status" -eq 0 ]
	[ "$(program a)" = '-n 10 --max-strangers=5 --max-strangers-per-source=3 --exit-idle=2.5 -k k -t "127.0.0.1:2"' ]
	[ "$(program b)" = '-n 200 --max-strangers=200 --max-strangers-per-source=200 --exit-idle=300 -k k -t "127.0.0.1:2"' ]
	[ "$(program c)" = '-n 200 --max-strangers=20 --max-strangers-per-source=20 --exit-idle=300 -k k -t "127.0.0.1:2"' ]
	[ "$(program d)" = '-n 10 --exit-idle=300 -k k -t "127.0.0.1:2"' ]
	# ten connections and twice five strangers, with two processes each
	has out/spipe-a@.service TasksMax=56 MemoryMax=109M LimitNOFILE=276
	has out/spipe-d@.service TasksMax=36 MemoryMax=104M LimitNOFILE=266
	has out/spipe-e@.service TasksMax=696 MemoryMax=75% LimitNOFILE=1044
}

@test "a UNIX socket in front, spipe-enc, a target by name" {
	generate 'redis enc /run/redis-far.sock db.example.net:7379 redis.key mode=0660,group=www-data'
	[ "$status" -eq 0 ]
	has out/spipe-redis.socket ListenStream=/run/redis-far.sock SocketMode=0660 \
		SocketGroup=www-data RemoveOnStop=yes
	lacks out/spipe-redis.socket Defer PerSource
	lacks out/spipe-redis@.service ^IPAddress '\.conf'
	[ "$(program redis)" = '-n 200 --exit-idle=300 -k redis.key -t "db.example.net:7379"' ]
	[ "$(watched)" = '/etc/hosts /etc/nsswitch.conf /etc/resolv.conf ' ]
	generate 'redis enc /run/redis-far.sock db.example.net:7379 redis.key'
	has out/spipe-redis.socket SocketMode=0600
}

@test "a UNIX socket behind has no network at all" {
	generate 'x dec 8025 /run/app.sock /root/k'
	[ "$status" -eq 0 ]
	has out/spipe-x.socket ListenStream=8025
	has out/spipe-x@.service PrivateNetwork=yes RestrictAddressFamilies=AF_UNIX IPAddressDeny=any \
		BindReadOnlyPaths=-/run/app.sock:/run/target.sock LoadCredential=k:/root/k
	[[ $(program x) = *'-k k -t "/run/target.sock"' ]]
	# the socket of a service that has restarted is a new one
	has out/spipe-x.path PathChanged=/run/app.sock Unit=renew-spipe@x.service PartOf=spipe-x.socket
	has out/spipe-x.socket Wants=spipe-x.path Wants=renew-spipe.path Wants=renew-spipe-root-k.path \
		Wants=renew-spipe-root-k.conf.path
	[ "$(watched)" = '/root/k /root/k.conf ' ]
}

@test "every form of an address" {
	generate 'a dec 192.0.2.1:1 [2001:db8::1]:2 k' 'b dec [192.0.2.1]:2 [127.0.0.1]:2 k' \
		'c dec [fe80::1]:1 [fe80::2%eth0.5]:2 k' 'd dec vsock:3:1 vsock:2:1234 k' \
		'e dec vsock::2 2 k' 'f enc 1 www.example.net:2 k'
	[ "$status" -eq 0 ]
	has out/spipe-a.socket ListenStream=192.0.2.1:1
	has out/spipe-a@.service IPAddressAllow=2001:db8::1
	[[ $(program a) = *' -t "[2001:db8::1]:2"' ]]
	has out/spipe-b.socket ListenStream=192.0.2.1:2
	has out/spipe-c.socket 'ListenStream=[fe80::1]:1'
	has out/spipe-c@.service IPAddressAllow=fe80::2
	[[ $(program c) = *' -t "[fe80::2%%eth0.5]:2"' ]]
	has out/spipe-d.socket ListenStream=vsock:3:1
	[[ $(program d) = *' -t "vsock:2:1234"' ]]
	has out/spipe-d@.service 'RestrictAddressFamilies=AF_UNIX AF_VSOCK'
	has out/spipe-e.socket ListenStream=vsock::2
	[[ $(program e) = *' -t "127.0.0.1:2"' ]]
	# the plain side is this machine's own
	has out/spipe-f.socket ListenStream=127.0.0.1:1
}

@test "a command as the target: quotes around the field, no shell, nothing that systemd expands" {
	generate 'x dec 1 "exec:/bin/prog  $HOME %n \x41 ; '"it's"' -o=a,b"	k	fdpass,network=no'
	[ "$status" -eq 0 ]
	grep -qF -e ' -p -k k -- "/bin/prog" "$$HOME" "%%n" "\\x41" ";" "it'"'"'s" "-o=a,b"' \
		out/spipe-x@.service
	has out/spipe-x@.service PrivateNetwork=yes
	has out/spipe-x@.service.d/20-exec.conf RootDirectory= BindReadOnlyPaths=
	generate 'x dec 1 exec:/bin/cat k'
	grep -qF -e ' -- "/bin/cat"' out/spipe-x@.service
	lacks out/spipe-x@.service ^PrivateNetwork
}

@test "every option of the programs has its word" {
	generate 'a dec 1 2 k pfs=no,keepalive=no,timeout=.5,idle=60,linger=0.5,proxy=1,sandbox=require' \
		'b dec 2 2 new key=/x/old,key=older,encrypted' \
		'c dec 3 2 clients/ runas=www-data:adm,supgroup=redis,nodefer,noauto' \
		'd dec 4 2 k allow=192.0.2.0/24,allow=2001:db8::/32,allow=127.0.0.1,bind=127.0.0.2' \
		'e enc /run/e [::1]:2 k user=www-data,mode=600,bind=::1'
	[ "$status" -eq 0 ]
	[[ $(program a) = *' -f -j -o .5 -i 60 --linger=0.5 --proxy-protocol=1 --sandbox=require -k k -t '* ]]
	has out/spipe-b@.service LoadCredentialEncrypted=new:/etc/spipe/new \
		LoadCredentialEncrypted=old:/x/old LoadCredentialEncrypted=older:/etc/spipe/older \
		LoadCredential=old.conf:/x/old.conf 'SetCredential=old.conf:#'
	[[ $(program b) = *' -k new -k old -k older -t '* ]]
	# each directory below /etc/spipe, and keys that are elsewhere, once
	[ "$(watched)" = '/etc/spipe/clients /x/old /x/old.conf ' ]
	has out/spipe-b.socket Wants=renew-spipe-x-old.path
	has out/renew-spipe-x-old.path Unit=renew-spipe.service
	has out/spipe-c@.service LoadCredential=clients:/etc/spipe/clients User=www-data Group=adm \
		SupplementaryGroups=redis SetCredential=clients:missing
	[[ $(program c) = *' -K clients -t '* ]]
	lacks out/spipe-c@.service '\.conf'
	lacks out/spipe-c.socket Defer
	[ ! -e out/sockets.target.wants/spipe-c.socket ]
	has out/spipe-d.socket IPAddressDeny=any IPAddressAllow=192.0.2.0/24 \
		IPAddressAllow=2001:db8::/32 IPAddressAllow=127.0.0.1
	[[ $(program d) = *' -b 127.0.0.2 -t "127.0.0.1:2"' ]]
	has out/spipe-d@.service SocketBindAllow=tcp
	has out/spipe-e.socket SocketUser=www-data SocketMode=600
	[[ $(program e) = *' -b [::1] -t "[::1]:2"' ]]
}

@test "each word is a word that spipe-enc and spipe-dec know" {
	local role words
	for role in dec enc; do
		generate "a $role 1 2 key bind=::1,pfs=no,keepalive=no,timeout=.5,idle=60,linger=0.5,proxy=1,sandbox=require" \
			"b $role 2 3 key accept=yes,pfs=require"
		# the words as systemd makes them, of both kinds of service
		for words in "$(program a)" "$(sed -n 's/^ExecStart=[^ ]* //p' out/spipe-b@.service)"; do
			words=${words//\"/}
			status=0
			# shellcheck disable=SC2086
			timeout -s KILL 10 "$BUILD/spipe-$role" $words --version </dev/null >version 2>err || status=$?
			[ "$status" -eq 0 ]
			grep -q "^spipe-$role " version
			status=0
			# shellcheck disable=SC2086
			timeout -s KILL 10 "$BUILD/spipe-$role" $words --no-such-word </dev/null 2>err || status=$?
			[ "$status" -eq 64 ]
		done
	done
}

@test "a wrong line: the name of its socket, and the address that this keeps open" {
	generate 'a dec 7001 2 k maxcon=1' 'b dec nowhere 2 k' 'a dec 7002 2 k' 'a/b dec 7003 2 k' 'c dec /run/c 2 %' 'd dec'
	[ "$status" -eq 1 ]
	has out/spipe-a.socket ListenStream=7001 Service=spipe-a@0.service Slice=spipe.slice
	has out/spipe-a@.service ExecStart=false
	has out/spipe-b.socket ListenStream=/run/spipe-b.wrong
	has out/spipe-c.socket ListenStream=/run/c
	has out/spipe-d.socket ListenStream=/run/spipe-d.wrong
	# where the name is taken or invalid
	has out/spipetab-line-3.socket ListenStream=7002 Service=spipetab-line-3@0.service
	has out/spipetab-line-4.socket ListenStream=/run/spipetab-line-4.wrong
}

@test "wrong fields: NAME and ROLE" {
	wrong 'ROLE is missing' 'x'
	wrong 'LISTEN is missing' 'x dec'
	wrong 'KEY is missing' 'x dec 1 2'
	wrong 'too many fields' 'x dec 1 2 k maxconn=1 7'
	wrong 'too many fields' 'x dec 1 2 k maxconn=1 # no comment'
	wrong 'too many fields' 'x dec 1 exec:a b c d'
	local name
	for name in a/b ../a a@b 'a%n' .a -a a. a- 'a\x20b' 'a:b' 'a$b' 'é' "$(printf 'a%.0s' {1..65})"; do
		wrong '' "$name dec 1 2 k"
	done
	wrong 'NAME dec would replace' 'dec dec 1 2 k'
	wrong 'NAME enc would replace' 'enc enc 1 2 k'
	wrong 'NAME before is taken by line 1$' 'before dec 5 6 k'
	wrong 'ROLE is enc or dec' 'x server 1 2 k'
	all_wrong
}

@test "wrong fields: LISTEN and TARGET" {
	local word
	for word in 0 65536 08 1.2.3.4 1.2.3.4: 1.2.3.4:x 1.2.3:4 1.2.3.256:4 :25 ::1:25 '[::1]' '[::1]25' \
		'[::g]:25' '[1.2.3.4%eth0]:25' '[fe80::1%a%b]:1' '[fe80::1%]:1' '[]:1' '-F:25' 'a b' 'a%n:25' \
		'a$b:25' 'host:25;x' 'h:99999999999' //a /a/../b /a/./b /a/ / '/a%n' '/a:b' '/a"b' "/$(printf 'a%.0s' {1..107})" \
		vsock: vsock:1 vsock:x:1 vsock:1:x vsock:1:4294967295 vsock:4294967296:1 'unix:/x' "'a'"; do
		wrong '' "x dec $word 2 k"
		wrong '' "x dec 1 $word k"
	done
	wrong 'LISTEN needs a numeric address' 'x dec localhost:1 2 k'
	wrong 'LISTEN cannot have a zone' 'x dec [fe80::1%eth0]:1 2 k'
	wrong 'LISTEN cannot be a command' 'x dec exec:a 2 k'
	wrong 'vsock target needs a CID' 'x dec 1 vsock::1 k'
	wrong 'no command' 'x dec 1 exec: k'
	wrong 'no command' 'x dec 1 "exec:  " k'
	wrong 'unterminated double quote' 'x dec 1 "exec:a k'
	wrong 'double quote' 'x dec 1 exec:a"b" k'
	wrong 'double quote' 'x dec 1 "exec:a"b k'
	wrong 'LISTEN is none of port, address:port, \[address\]:port, /path and vsock:CID:port$' 'x dec ssh 2 k'
	wrong 'TARGET is none of port, host:port, \[address\]:port, /path, vsock:CID:port and exec:command$' 'x dec 1 ssh k'
	wrong 'TARGET: the port must be a number from 1 to 65535, not a name$' 'x dec 1 localhost:ssh k'
	all_wrong
}

@test "wrong fields: KEY and OPTIONS" {
	local word
	for word in ../k a/../k ./k a:b 'a%n' 'a$b' / // '/a//b' '""' "$(printf 'a%.0s' {1..241})"; do
		wrong 'KEY' "x dec 1 2 $word"
	done
	wrong 'KEY: its path is too long' "x dec 1 2 /etc$(printf '/d.d%.0s' {1..60})/k@@@"
	wrong 'no directory' 'x enc 1 2 keys/'
	wrong 'one key' 'x enc 1 2 k key=l'
	wrong 'cannot be combined' 'x dec 1 2 keys/ key=l'
	wrong 'cannot be combined' 'x dec 1 2 k key=l/'
	wrong 'two keys are named k' 'x dec 1 2 k key=/a/k'
	wrong 'more than' "x dec 1 2 k $(printf 'key=k%s,' {1..16} | sed 's/,$//')"
	wrong 'not with a directory' 'x dec 1 2 keys/ encrypted'
	for word in , a, maxconn=1, ,maxconn=1 maxconn=1,,noauto x=1 maxconn maxconn= maxconn=0 maxconn=65536 \
		maxconn=-1 maxconn=1,maxconn=2 noauto=yes noauto,noauto persource=x timeout=0 timeout=0.0 \
		timeout=. timeout=1.2.3 timeout=5s timeout=1e3 timeout=-1 idle=0 linger= proxy=3 proxy=12 pfs=yes \
		pfs= 'pfs=require no' keepalive=yes sandbox=off runas=-x 'runas=a:' runas=:a 'runas=a b' 'runas=a:b:c' \
		supgroup=% allow=localhost allow=1.2.3.4/33 allow=::1/129 allow= allow=any allow=1.2.3.4/ \
		bind=host key key= key=../x 'maxconn=1%n' NOAUTO; do
		wrong '' "x dec 1 2 k $word"
	done
	for word in accept accept=maybe strangers=0 strangers exit-idle=0 exit-idle=x exit-idle; do
		wrong "option ${word%%=*} wants" "x dec 1 2 k $word"
	done
	wrong 'only where accept=yes is not given' 'x dec 1 2 k accept=yes,exit-idle=5'
	wrong 'only where ROLE is dec and accept=yes is not given' 'x dec 1 2 k accept=yes,strangers=5'
	wrong 'only where ROLE is dec and accept=yes is not given' 'x enc 1 2 k strangers=5'
	wrong 'for enc only with accept=yes' 'x enc 1 2 k persource=5'
	for word in mode=0660 user=root group=root; do
		wrong 'only where LISTEN is a UNIX socket' "x dec 1 2 k $word"
	done
	for word in allow=::1 persource=1 nodefer; do
		wrong 'only where LISTEN is a TCP address' "x dec /a 2 k $word"
	done
	for word in fdpass network=no; do
		wrong 'only where TARGET is exec:' "x dec 1 2 k $word"
	done
	for word in mode=1777 mode=8 mode=66 mode=06600 mode=rw user=a/b; do
		wrong "option ${word%%=*} wants " "x dec /a 2 k $word"
	done
	wrong 'option maxconn wants a number from 1 to 65535$' 'x dec 1 2 k maxconn=0'
	wrong 'option maxconn wants a number from 1 to 65535$' 'x dec 1 2 k maxconn'
	wrong 'option pfs wants require\|no$' 'x dec 1 2 k pfs=yes'
	wrong 'option timeout wants seconds, such as 60 or 2.5$' 'x dec 1 2 k timeout=5s'
	wrong 'option runas wants USER or USER:GROUP$' 'x dec 1 2 k runas=a:'
	wrong 'option allow wants ADDRESS or ADDRESS/BITS, numeric$' 'x dec 1 2 k allow=localhost'
	wrong 'option allow: more than 32 networks$' "x dec 1 2 k bind=::1$(printf ',allow=::%s' {1..33})"
	wrong 'option runas wants ' "x dec 1 2 k runas=$(printf 'a%.0s' {1..33})"
	wrong 'option mode wants an octal mode up to 0777$' 'x dec /a 2 k mode=rw'
	wrong 'only where TARGET is a TCP' 'x dec 1 /a k bind=127.0.0.1'
	wrong 'never defers' 'x enc 1 2 k nodefer'
	all_wrong
}

@test "odd bytes, long lines, odd ends" {
	wrong 'byte 0x0d' $'x dec 1 2 k\r'
	wrong 'byte 0x1b' $'x dec 1 2 k\e'
	wrong 'byte 0xc3' 'x dec 1 2 ké'
	wrong 'longer than' "x dec 1 2 k $(printf 'a%.0s' {1..5000})"
	all_wrong
	printf 'a dec 1 2 k\0\nb dec 2 2 k\nc dec 3 2 k' >tab
	rm -rf out && mkdir out
	status=0
	SPIPETAB=tab "$GENERATOR" out 2>err || status=$?
	[ "$status" -eq 1 ]
	[ "$(grep -v warning err)" = 'spipe-generator: tab:1: byte 0x00: plain ASCII text only' ]
	[ -e out/spipe-b.socket ]
	[ -e out/spipe-c.socket ]
	[ ! -e out/spipe-a.socket ]
	[ -e out/spipetab-line-1.socket ]
	generate '# comment: é' '	 # another' '' '   ' $'\tx  dec\t1 2   k  '
	[ "$status" -eq 0 ]
	[ -e out/spipe-x@.service ]
	generate
	[ "$status" -eq 0 ]
	[ -z "$(ls out)" ]
}

@test "a line without an end takes no memory" {
	head -c 100000000 /dev/zero | tr '\0' a >endless
	printf '\nx dec 1 2 k\n' >>endless
	SPIPETAB=endless /usr/bin/python3 -c '
import resource, subprocess, sys
assert subprocess.run(sys.argv[1:]).returncode == 1
assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 80000' "$GENERATOR" out 2>err
	grep -qx 'spipe-generator: endless:1: the line is longer than 4095 bytes' err
	[ -e out/spipe-x.socket ]
}

@test "two lines with the same LISTEN: the first one counts" {
	local first second
	while read -r first second; do
		generate '# the third line' '' "first dec $first 2 k" "second enc $second 2 k" 'third dec 7001 2 k'
		[ "$status" -eq 1 ]
		[ "$(cat err)" = "spipe-generator: $PWD/tab:4: LISTEN is taken by line 3" ]
		lacks out/spipe-first.socket ^ExecStartPre=
		has out/spipe-second.socket ExecStartPre=false
		[ -e out/spipe-third.socket ]
	done <<-'EOF'
		/run/a.sock /run/a.sock
		192.0.2.1:1 [192.0.2.1]:1
		8025 [::]:8025
		[::]:8025 8025
		8025 127.0.0.1:8025
		192.0.2.1:8025 [::]:8025
		0.0.0.0:8025 192.0.2.1:8025
		8025 0.0.0.0:8025
		[fe80::1]:1 [fe80::1]:1
		vsock::1 vsock:3:1
	EOF
	while read -r first second; do
		generate "first dec $first 2 k" "second enc $second 2 k"
		[ "$status" -eq 0 ]
		[ -e out/spipe-second.socket ]
	done <<-'EOF'
		/run/a.sock /run/b.sock
		192.0.2.1:1 192.0.2.2:1
		192.0.2.1:1 192.0.2.1:2
		0.0.0.0:8025 [::1]:8025
		[fe80::1]:1 [fe80::2]:1
		1 vsock::1
		vsock:3:1 vsock:2:1
	EOF
	# those that are started by hand may take turns
	generate 'a dec 1 2 k noauto' 'b dec 1 3 k noauto' 'c dec 1 4 k' 'd dec 1 5 k noauto'
	[ "$status" -eq 0 ]
}

@test "a key that is not there yet: a warning with its path, and the units all the same" {
	mkdir keys colon control
	cp key keys/there
	touch colon/a:b control/$'a\n'b
	generate '# the second line' "a dec 1 2 $PWD/keys/there key=$PWD/keys/gone" "b dec 2 2 $PWD/nowhere/" \
		"c enc 3 2 spipe-test-no-such.key" "d dec 4 2 $PWD/keys/" "e dec 5 2 $PWD/keys/there/below" \
		"wrong dec 6 nowhere $PWD/keys/gone" "f dec 7 2 $PWD/colon/" "g dec 8 2 $PWD/control/"
	[ "$status" -eq 1 ]
	[ "$(cat err)" = "spipe-generator: $PWD/tab:7: TARGET is none of port, host:port, [address]:port, /path, vsock:CID:port and exec:command" ]
	diff warnings - <<-END
		spipe-generator: $PWD/tab:2: warning: no key file $PWD/keys/gone: connections will fail without it
		spipe-generator: $PWD/tab:3: warning: no key directory $PWD/nowhere: connections will fail without it
		spipe-generator: $PWD/tab:4: warning: no key file /etc/spipe/spipe-test-no-such.key: connections will fail without it
		spipe-generator: $PWD/tab:6: warning: no key file $PWD/keys/there/below: connections will fail without it
		spipe-generator: $PWD/tab:8: warning: the name of $PWD/colon/a:b is too long, or not plain ASCII without a colon: the service cannot start until it is renamed
		spipe-generator: $PWD/tab:9: warning: the name of $PWD/control/a?b is too long, or not plain ASCII without a colon: the service cannot start until it is renamed
	END
	[ "$(find out -name '*.socket' -type f | wc -l)" -eq 8 ]
	lacks out/spipe-f.socket ^ExecStartPre=
	generate "a dec 1 2 $PWD/keys/gone"
	[ "$status" -eq 0 ]
}

@test "under systemd all that it says goes to the kernel's log too, with its level" {
	unshare --mount true 2>/dev/null || skip "no mounts of its own here"
	printf '%s\n' "a dec 1 2 $PWD/gone" 'wrong dec 1' >tab
	mkfifo kmsg
	exec 5<>kmsg
	SPIPETAB=$PWD/tab run unshare --mount sh -c 'mount --bind kmsg /dev/kmsg && SYSTEMD_SCOPE=system exec "$0" out' "$GENERATOR"
	[ "$status" -eq 1 ]
	timeout -s KILL 5 head -n 2 <&5 >lines
	grep -x "<4>spipe-generator: $PWD/tab:1: warning: no key file $PWD/gone: .*" lines
	grep -x "<3>spipe-generator: $PWD/tab:2: TARGET is missing: .*" lines
	exec 5>&-
}

@test "no text of a field becomes a directive" {
	local evil line lines=() n=0
	# The file as a whole may be hostile: only the lines that we know come out.
	for evil in '\nExecStart=/evil' '\x0aExecStart=/evil' $'\vExecStart=/evil' $'\fX' '%n' '${X}' '`x`' '$(x)' \
		'\' '";"' ';/evil' '|' '[Service]' '=' "'"; do
		for line in "X$evil dec P 2 k" "X dec$evil P 2 k" "X dec P$evil 2 k" "X dec P 2$evil k" \
			"X dec /P$evil 2 k" "X dec P /a$evil k" "X dec P 2 k$evil" "X dec P 2 k timeout=1$evil" \
			"X dec P 2 k runas=a$evil" "X dec /P 2 k group=a$evil" "X dec P 2 k key=a$evil" \
			"X dec P host$evil:2 k" "X dec P 2 k $evil=1" "X dec P exec:/bin/a$evil k"; do
			n=$((n + 1))
			line=${line/X/x$n}
			lines+=("${line/P/$n}") # each with a name and an address of its own
		done
	done
	generate "${lines[@]}"
	[ "$(find out -name '*.socket' -type f | wc -l)" -eq $n ]
	if grep -rvE '^(#.*|\[(Unit|Socket|Service|Path)\]|(Description|Documentation|SourcePath|Slice|ListenStream|FreeBind|DeferAcceptSec|Accept|TriggerLimitIntervalSec|Socket(Mode|Group)|RemoveOnStop|Type|LoadCredential|SetCredential|RestrictAddressFamilies|IPAddress(Deny|Allow)|BindReadOnlyPaths|RootDirectory|TasksMax|MemoryMax|LimitNOFILE|PrivateNetwork|PathChanged|StartLimitIntervalSec|RestartSec|TemporaryFileSystem|ReadOnlyPaths)=.*|(ProtectKernelTunables|ProtectHostname|RestrictSUIDSGID|PrivateTmp|RemoveIPC)=yes|Wants=(renew-spipe|spipe-x[0-9]+|renew-spipe-etc-[a-z.]*)\.path|PartOf=spipe-x[0-9]+\.socket|After=renew-spipe\.service renew-spipe@x[0-9]+\.service|Unit=renew-spipe(@x[0-9]+)?\.service|Sockets=spipe-x[0-9]+\.socket|Service=spipe-x[0-9]+@0\.service|ExecReload=kill -HUP \$MAINPID|Restart=on-failure|StartLimitBurst=1|ExecStartPre=false|ExecStart=false|ListenStream=/run/spipe(tab-line-[0-9]+|-x[0-9]+).wrong|ExecStartPost=-install -D -m 644 -t /run/spipe /run/systemd/generator/spipe-x[0-9]+.socket /run/systemd/generator/spipe-x[0-9]+@.service|Service=spipetab-line-[0-9]+@0.service|ExecStopPre=-systemctl stop "spipe-x[0-9]+@\*\.service"|ExecStart=|)$' out |
		grep -vE '^[^:]*:ExecStart=/[^ ]*/spipe-dec -n 200 --max-strangers=200 --max-strangers-per-source=50( --exit-idle=300)?( -[okK]| [a-z=0-9]+)* (-t|--)( "([^"\$%]|\\\\|\\"|\$\$|%%)*")+$'; then
		return 1
	fi
	grep -rhc '^ExecStart=/' out | sort -u | diff - <(printf '%s\n' 0 1)
}

@test "systemd reads the units as they are meant, without a warning" {
	local units=() unit
	generate 'a dec [::]:8025 127.0.0.1:25 mail.key maxconn=200,pfs=require' \
		'b enc /run/redis-far.sock db.example.net:7379 redis.key mode=0660' \
		'c dec 8026 /run/app.sock clients/ idle=60' 'd dec vsock::5 vsock:2:3 k' \
		'e dec 8027 "exec:/bin/echo a$HOME %n \x41 ;" k allow=127.0.0.0/8' 'f dec 1 2 k bind=127.0.0.2'
	[ "$status" -eq 0 ]
	command -v systemd-analyze >/dev/null || skip "no systemd-analyze"
	# paths and pages that are there only once installed
	sed -i -e 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' out/*.service
	for unit in out/spipe-*@.service; do
		cp "$unit" "${unit/@/@1}"
		units+=("${unit/@/@1}")
	done
	run systemd-analyze verify --man=no out/*.socket "${units[@]}"
	[[ $output != *spipe* ]]
}

@test "usage, a table that cannot be read, a directory that cannot be written" {
	status=0
	"$GENERATOR" 2>err || status=$?
	[ "$status" -eq 64 ]
	grep -q '^usage: ' err
	status=0
	SPIPETAB=/nonexistent "$GENERATOR" out 2>err || status=$?
	[ "$status" -eq 1 ]
	[ "$(cat err)" = 'spipe-generator: /nonexistent: No such file or directory' ]
	echo 'x dec 1 2 k' >tab
	status=0
	SPIPETAB=tab "$GENERATOR" nowhere 2>err || status=$?
	[ "$status" -eq 1 ]
	one_line err spipe-generator nowhere
	# nothing is ever replaced
	echo mine >out/spipe-x@.service
	status=0
	SPIPETAB=tab "$GENERATOR" out 2>err || status=$?
	[ "$status" -eq 1 ]
	grep -v warning err >errors
	one_line errors spipe-generator 'taken'
	[ "$(cat out/spipe-x@.service)" = mine ]
	[ ! -e out/spipe-x.socket ]
	grep -q 'Description=tab:1: NAME x is taken' out/spipetab-line-1.socket
	# a full disk leaves no half unit
	if [ -e /dev/full ]; then
		rm -r out && mkdir out
		status=0
		bash -c 'ulimit -f 0; trap "" XFSZ; SPIPETAB=tab exec "$0" out' "$GENERATOR" 2>err || status=$?
		[ "$status" -eq 1 ]
		[ -z "$(ls out)" ]
	fi
}

@test "units are readable for all, whatever the umask" {
	umask 077
	generate 'a dec 1 exec:/bin/cat k'
	umask 0
	[ "$(find out -mindepth 1 -type f ! -perm 644 | wc -l)" -eq 0 ]
	[ "$(find out -mindepth 1 -type d ! -perm 755 | wc -l)" -eq 0 ]
	generate 'a dec 1 exec:/bin/cat k'
	[ "$(find out -mindepth 1 -type f ! -perm 644 | wc -l)" -eq 0 ]
	[ "$(find out -mindepth 1 -type d ! -perm 755 | wc -l)" -eq 0 ]
}

@test "what tunnels have in common is watched once" {
	local i
	for i in {1..20}; do
		echo "t$i dec $((i + 8000)) far.example:$((i + 9000)) sub/dir/k$i key=/x/k"
	done >tab
	echo 'odd enc 1 2 /a-b@c/+d=e~' >>tab
	SPIPETAB=tab "$GENERATOR" out early late 2>messages
	# as systemd-escape --path
	[ -e 'out/renew-spipe-a\x2db\x40c-\x2bd\x3de\x7e.path' ]
	rm 'out/renew-spipe-a\x2db\x40c-\x2bd\x3de\x7e.path'
	[ "$(watched)" = '/etc/hosts /etc/nsswitch.conf /etc/resolv.conf /etc/spipe/sub/dir /x/k /x/k.conf ' ]
}

@test "a thousand tunnels" {
	local i
	for i in {1..1000}; do
		echo "t$i dec $((i + 8000)) $((i + 9000)) k"
	done >tab
	SPIPETAB=tab "$GENERATOR" out early late
	[ "$(find out -name '*.socket' -type f | wc -l)" -eq 1000 ]
}
