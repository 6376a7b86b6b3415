#!/usr/bin/env bats
# make install and uninstall: each file where it belongs, with the paths in it right for any PREFIX.

load ../helpers/lib

# One build is enough for most of the tests.
setup_file() {
	unset MAKEFLAGS MFLAGS MAKEOVERRIDES
	make -s -C "$TESTS/.." all BUILD="$BATS_FILE_TMPDIR/build" WITH_SYSTEMD=yes CFLAGS=-O0 zero_registers= \
		>"$BATS_FILE_TMPDIR/make.err" 2>&1 || cat "$BATS_FILE_TMPDIR/make.err"
}

setup() {
	setup_test
	TREE=$(cd "$TESTS/.." && pwd)
	unset MAKEFLAGS MFLAGS MAKEOVERRIDES
}

# installed: what is in ./root, as paths.
installed() {
	(cd root && find . ! -type d -printf '/%P\n' | sort)
}

@test "install: for any PREFIX, and uninstall leaves nothing" {
	cp -a "$BATS_FILE_TMPDIR/build" build
	make -s -C "$TREE" install BUILD="$PWD/build" DESTDIR="$PWD/root" PREFIX=/opt/pipe WITH_SYSTEMD=yes \
		CFLAGS=-O0 zero_registers= >make.err 2>&1
	diff <(installed | grep -v '^/opt/pipe/lib/spipe-filters/root/') - <<-'END'
		/opt/pipe/bin/spipe-dec
		/opt/pipe/bin/spipe-enc
		/opt/pipe/bin/spipectl
		/opt/pipe/lib/spipe-filters/complete
		/opt/pipe/lib/spipe-filters/renew
		/opt/pipe/lib/systemd/catalog/spipe-filters.catalog
		/opt/pipe/lib/systemd/system-generators/spipe-generator
		/opt/pipe/lib/systemd/system/metrics-spipe.service
		/opt/pipe/lib/systemd/system/metrics-spipe.timer
		/opt/pipe/lib/systemd/system/renew-spipe.path
		/opt/pipe/lib/systemd/system/renew-spipe.service
		/opt/pipe/lib/systemd/system/renew-spipe@.service
		/opt/pipe/lib/systemd/system/spipe-.service.d/10-hardening.conf
		/opt/pipe/lib/systemd/system/spipe-dec.socket
		/opt/pipe/lib/systemd/system/spipe-dec@.service
		/opt/pipe/lib/systemd/system/spipe-enc.socket
		/opt/pipe/lib/systemd/system/spipe-enc@.service
		/opt/pipe/lib/systemd/system/spipe.slice
		/opt/pipe/share/bash-completion/completions/spipe-dec
		/opt/pipe/share/bash-completion/completions/spipe-enc
		/opt/pipe/share/bash-completion/completions/spipectl
		/opt/pipe/share/doc/spipe-filters/fail2ban/filter.d/spipe-dec.conf
		/opt/pipe/share/doc/spipe-filters/fail2ban/jail.d/spipe-dec.conf
		/opt/pipe/share/doc/spipe-filters/nftables/spipe-dec.nft
		/opt/pipe/share/doc/spipe-filters/xinetd/spipe-dec
		/opt/pipe/share/doc/spipe-filters/xinetd/spipe-enc
		/opt/pipe/share/fish/vendor_completions.d/spipe-dec.fish
		/opt/pipe/share/fish/vendor_completions.d/spipe-enc.fish
		/opt/pipe/share/fish/vendor_completions.d/spipectl.fish
		/opt/pipe/share/man/man1/spipe-dec.1
		/opt/pipe/share/man/man1/spipe-enc.1
		/opt/pipe/share/man/man5/spipetab.5
		/opt/pipe/share/man/man7/spipe-filters.7
		/opt/pipe/share/man/man8/spipe-generator.8
		/opt/pipe/share/man/man8/spipectl.8
		/opt/pipe/share/zsh/site-functions/_spipe
	END
	for file in bash-completion/completions/spipectl fish/vendor_completions.d/spipe-dec.fish zsh/site-functions/_spipe; do
		grep -q '/opt/pipe/lib/spipe-filters/complete' "root/opt/pipe/share/$file"
	done
	[ -x root/opt/pipe/lib/spipe-filters/complete ]
	# no placeholder is left, and what the files name is there
	run ! grep -rIE '@[A-Z]+@' root
	grep -rhoE '/opt/pipe/bin/[a-z-]+' root/opt/pipe/lib/systemd/system root/opt/pipe/share/doc | sort -u >programs
	printf '%s\n' /opt/pipe/bin/spipe-dec /opt/pipe/bin/spipe-enc /opt/pipe/bin/spipectl | diff programs -
	[ -x "root$(sed -n 's/^ExecStart=\([^ ]*\) .*/\1/p' root/opt/pipe/lib/systemd/system/renew-spipe@.service)" ]
	dir=$(sed -n 's/^RootDirectory=//p' root/opt/pipe/lib/systemd/system/spipe-.service.d/10-hardening.conf)
	[ -d "root$dir/usr" ]
	# the manual pages': what they tell to type is there
	run ! grep -rE '/usr/[^ ]*(bin/spipe|generator)' root/opt/pipe/share/man
	for page in 5/spipetab 8/spipe-generator; do
		grep -q '/opt/pipe/lib/systemd/system-generators/spipe-generator' "root/opt/pipe/share/man/man$page.${page%%/*}"
	done
	[ "$(grep -c '/opt/pipe/bin/spipe-dec ' root/opt/pipe/share/man/man7/spipe-filters.7)" -eq \
		"$(grep -c '/usr/local/bin/spipe-dec ' "$TREE/man/spipe-filters.7")" ]
	grep -q '/opt/pipe/share/doc/spipe-filters/xinetd' root/opt/pipe/share/man/man7/spipe-filters.7
	[ "$(readlink root/opt/pipe/share/man/man1/spipe-dec.1)" = spipe-enc.1 ]
	# the generator's too
	echo 'x dec 1 2 k' >tab
	mkdir units
	SPIPETAB=$PWD/tab root/opt/pipe/lib/systemd/system-generators/spipe-generator units
	grep -q '^ExecStart=/opt/pipe/bin/spipe-dec ' units/spipe-x@.service
	# another PREFIX, from the same build
	make -s -C "$TREE" install BUILD="$PWD/build" DESTDIR="$PWD/second" PREFIX=/usr WITH_SYSTEMD=yes \
		CFLAGS=-O0 zero_registers= >make.err 2>&1
	rm -r units && mkdir units
	SPIPETAB=$PWD/tab second/usr/lib/systemd/system-generators/spipe-generator units
	grep -q '^ExecStart=/usr/bin/spipe-dec ' units/spipe-x@.service

	make -s -C "$TREE" uninstall BUILD="$PWD/build" DESTDIR="$PWD/root" PREFIX=/opt/pipe WITH_SYSTEMD=yes
	[ -z "$(installed)" ]
	[ ! -e root/opt/pipe/lib/spipe-filters ]
	[ ! -e root/opt/pipe/share/doc/spipe-filters ]
	[ ! -e root/opt/pipe/lib/systemd/system/spipe-.service.d ]
}

@test "install: the manual pages in the tree are right for the default PREFIX" {
	local page
	cp -a "$BATS_FILE_TMPDIR/build" build
	make -s -C "$TREE" install BUILD="$PWD/build" DESTDIR="$PWD/root" WITH_SYSTEMD=yes CFLAGS=-O0 zero_registers= \
		>make.err 2>&1
	for page in "$TREE"/man/*.[1578]; do
		cmp "$page" "root/usr/local/share/man/man${page##*.}/${page##*/}"
	done
	[ -x root/usr/local/bin/spipe-dec ]
	[ -x root/usr/local/lib/systemd/system-generators/spipe-generator ]
}

@test "install: a relative path is refused, in one line" {
	local setting
	for setting in PREFIX=there BINDIR=bin GENERATORDIR=./g; do
		status=0
		make -s -C "$TREE" install BUILD="$PWD/build" DESTDIR="$PWD/root" "$setting" >out 2>err || status=$?
		[ "$status" -eq 2 ]
		[ "$(wc -l <err)" -eq 1 ]
		grep -q "${setting%=*} must be an absolute path, not ${setting#*=}" err
		[ ! -e build ]
		[ ! -e root ]
	done
}

@test "install: uninstall removes nothing that install did not put there" {
	local setting=(DESTDIR="$PWD/root" XINETDDIR=/etc/xinetd.d ROOTDIR=/lib/world WITH_SYSTEMD=yes)
	cp -a "$BATS_FILE_TMPDIR/build" build
	make -s -C "$TREE" install BUILD="$PWD/build" "${setting[@]}" CFLAGS=-O0 zero_registers= >make.err 2>&1
	[ -e root/etc/xinetd.d/spipe-dec ]
	[ -d root/lib/world/var/tmp ]
	touch root/etc/xinetd.d/ours root/lib/world/var/ours root/lib/world/etc/ours root/usr/local/bin/ours
	ln -s ours root/lib/world/our-link
	make -s -C "$TREE" uninstall BUILD="$PWD/build" "${setting[@]}"
	diff <(installed) - <<-'END'
		/etc/xinetd.d/ours
		/lib/world/etc/ours
		/lib/world/our-link
		/lib/world/var/ours
		/usr/local/bin/ours
	END
	# twice does no harm
	make -s -C "$TREE" uninstall BUILD="$PWD/build" "${setting[@]}"
	[ -e root/lib/world/var/ours ]
}

@test "install: without systemd" {
	make -s -C "$TREE" install BUILD="$PWD/build" DESTDIR="$PWD/root" BINDIR=/sbin MANDIR=/man WITH_SYSTEMD=no \
		CFLAGS=-O0 zero_registers= >make.err 2>&1
	diff <(installed) - <<-'END'
		/man/man1/spipe-dec.1
		/man/man1/spipe-enc.1
		/man/man7/spipe-filters.7
		/sbin/spipe-dec
		/sbin/spipe-enc
		/usr/local/lib/spipe-filters/complete
		/usr/local/share/bash-completion/completions/spipe-dec
		/usr/local/share/bash-completion/completions/spipe-enc
		/usr/local/share/bash-completion/completions/spipectl
		/usr/local/share/doc/spipe-filters/fail2ban/filter.d/spipe-dec.conf
		/usr/local/share/doc/spipe-filters/fail2ban/jail.d/spipe-dec.conf
		/usr/local/share/doc/spipe-filters/nftables/spipe-dec.nft
		/usr/local/share/doc/spipe-filters/xinetd/spipe-dec
		/usr/local/share/doc/spipe-filters/xinetd/spipe-enc
		/usr/local/share/fish/vendor_completions.d/spipe-dec.fish
		/usr/local/share/fish/vendor_completions.d/spipe-enc.fish
		/usr/local/share/fish/vendor_completions.d/spipectl.fish
		/usr/local/share/zsh/site-functions/_spipe
	END
	grep -q '= /sbin/spipe-dec$' root/usr/local/share/doc/spipe-filters/xinetd/spipe-dec
	make -s -C "$TREE" uninstall BUILD="$PWD/build" DESTDIR="$PWD/root" BINDIR=/sbin MANDIR=/man WITH_SYSTEMD=no
	[ -z "$(installed)" ]
}

@test "ipsec-mb is used where the compiler makes x86-64 programs and finds the library" {
	cat >cc <<-'END'
		#!/bin/sh
		case $* in
		-dumpmachine) echo "$MACHINE" ;;
		-print-file-name=*) echo "$LIBRARY" ;;
		*intel-ipsec-mb.h*) [ -e "$HEADER" ] ;;
		esac
	END
	chmod +x cc
	touch found
	unset WITH_IPSEC_MB # make check exports what it was given
	uses() { # MACHINE HEADER LIBRARY VARIABLE...
		MACHINE=$1 HEADER=$2 LIBRARY=$3 make -n -C "$TREE" BUILD="$PWD/b" CC="$PWD/cc" "${@:4}" all >commands
		grep -q -e -DWITH_IPSEC_MB commands
	}
	uses x86_64-linux-gnu "$PWD/found" "$PWD/found"
	not uses x86_64-linux-gnu "$PWD/found" "$PWD/found" WITH_IPSEC_MB=no
	not uses x86_64-linux-gnu "$PWD/nowhere" "$PWD/found"
	not uses x86_64-linux-gnu "$PWD/found" libIPSec_MB.a
	not uses aarch64-linux-gnu "$PWD/found" "$PWD/found"
	uses aarch64-linux-gnu "$PWD/nowhere" libIPSec_MB.a WITH_IPSEC_MB=yes
}

@test "a packager's _FORTIFY_SOURCE replaces ours" {
	unset CPPFLAGS SANITIZE # make check exports what it was given
	make -n -C "$TREE" BUILD="$PWD/b" all >commands
	grep -q -e '-D_FORTIFY_SOURCE=2' commands
	make -n -C "$TREE" BUILD="$PWD/b" CPPFLAGS=-D_FORTIFY_SOURCE=3 all >commands
	grep -q -e '-D_FORTIFY_SOURCE=3' commands
	not grep -q -e '-D_FORTIFY_SOURCE=2' commands
	make -n -C "$TREE" BUILD="$PWD/b" SANITIZE=yes all >commands
	not grep -q FORTIFY commands
}

@test "a build without a sandbox says so" {
	make -s -C "$TREE" BUILD="$PWD/b" SANDBOX=no WERROR=yes CFLAGS=-O0 zero_registers= "$PWD/b/common/sandbox.o" 2>make.err
	grep -q 'no sandbox' make.err
	make -s -C "$TREE" BUILD="$PWD/b" SANDBOX=yes CFLAGS=-O0 zero_registers= "$PWD/b/common/sandbox.o" 2>make.err
	not grep 'sandbox' make.err
}
