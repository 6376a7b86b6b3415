#!/usr/bin/env bats
# shellcheck shell=bash disable=SC2154
# ssh through ProxyCommand to a real sshd behind spipe-dec, on loopback.
load ../helpers/lib

# An sshd of the test's own, in the way of inetd: the acceptor gives it a free port.
setup() {
	setup_test
	local sshd
	sshd=$(command -v sshd || echo /usr/sbin/sshd)
	ssh-keygen -q -t ed25519 -N '' -f host
	ssh-keygen -q -t ed25519 -N '' -f user
	cp user.pub authorized
	echo "tunnelled $(cut -d ' ' -f 1,2 host.pub)" >known
	cat >sshd.conf <<-EOF
		HostKey $PWD/host
		AuthorizedKeysFile $PWD/authorized
		PidFile none
		StrictModes no
		UsePAM no
		PasswordAuthentication no
		PermitRootLogin yes
		Subsystem sftp internal-sftp
		LogLevel ERROR
	EOF
	cat >ssh.conf <<-EOF
		Host *
		HostKeyAlias tunnelled
		User $(id -un)
		IdentityFile $PWD/user
		IdentitiesOnly yes
		UserKnownHostsFile $PWD/known
		GlobalKnownHostsFile /dev/null
		StrictHostKeyChecking yes
		BatchMode yes
		ControlPath none
	EOF
	# Debian's sshd wants its directory when it is root; a system where sshd runs has it.
	[ "$(id -u)" -ne 0 ] || mkdir -p /run/sshd
	listen sshd "$sshd" -i -f "$PWD/sshd.conf"
	sshd_port=$port
}

@test "ssh through spipe-enc with nc to spipe-dec with nc" {
	listen dec "$DEC" -k key -- nc -N 127.0.0.1 "$sshd_port"
	echo "ProxyCommand $ENC -k $PWD/key -- nc -N 127.0.0.1 $port" >>ssh.conf
	[ "$(ssh -F ssh.conf far.example.net 'echo from there')" = "from there" ]
	random 3000000 in
	ssh -F ssh.conf far.example.net 'cat' <in >out
	cmp in out
	run -7 ssh -F ssh.conf far.example.net 'exit 7'
	random 104857600 big
	scp -q -F ssh.conf big "far.example.net:$PWD/copy"
	cmp big copy
	scp -q -F ssh.conf "far.example.net:$PWD/copy" back
	cmp big back
}

@test "ssh through spipe-enc -p with nc -F to spipe-dec -p with nc -F" {
	listen dec "$DEC" -p -k key -- nc -F 127.0.0.1 "$sshd_port"
	echo "ProxyCommand $ENC -p -k $PWD/key -- nc -F 127.0.0.1 $port" >>ssh.conf
	[ "$(ssh -F ssh.conf far.example.net 'echo from there')" = "from there" ]
	random 104857600 big
	scp -q -F ssh.conf big "far.example.net:$PWD/copy"
	cmp big copy
	scp -q -F ssh.conf "far.example.net:$PWD/copy" back
	cmp big back
}

@test "git clone over ssh through the tunnel" {
	command -v git >/dev/null || skip "no git"
	listen dec "$DEC" -p -k key -- nc -F 127.0.0.1 "$sshd_port"
	echo "ProxyCommand $ENC -p -k $PWD/key -- nc -F 127.0.0.1 $port" >>ssh.conf
	export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
	git init -q origin
	random 20000000 origin/data
	git -C origin add data
	git -C origin -c user.name=t -c user.email=t@example.net commit -q -m data
	GIT_SSH_COMMAND="ssh -F $PWD/ssh.conf" git clone -q "far.example.net:$PWD/origin" clone
	cmp origin/data clone/data
}

@test "ssh with the wrong key fails at once and says why" {
	listen dec "$DEC" -k other -- nc -N 127.0.0.1 "$sshd_port"
	echo "ProxyCommand $ENC -k $PWD/key -- nc -N 127.0.0.1 $port" >>ssh.conf
	run -255 ssh -F ssh.conf far.example.net true
	[[ $output == *"spipe-enc: "*key* ]]
	statuses dec 5 77
	[ ! -e sshd.status ] || [ "$(wc -l <sshd.status)" -eq 0 ]
}
