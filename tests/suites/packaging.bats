#!/usr/bin/env bats
# make dist, release-check and html, and what the packages of other systems say. The Debian packages themselves are
# built, installed and removed by long/packages.bats.

load ../helpers/lib

setup() {
	setup_test
	TREE=$(cd "$TESTS/.." && pwd)
	VERSION=$(sed -n 's/^VERSION = //p' "$TREE/Makefile")
	unset MAKEFLAGS MFLAGS MAKEOVERRIDES BUILD
	export GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x
}

# copy: ./copy is a repository of its own with what is here now, in one commit. (Without the corpora, which are many files.)
copy() {
	mkdir copy
	tar -C "$TREE" --exclude='./build*' --exclude=./.git --exclude=./tests/fuzz/corpus -cf - . | tar -C copy -xf -
	git -C copy init -q
	git -C copy add -A
	git -C copy commit -q -m all
}

@test "dist: the same bytes twice, all that is committed, and nothing else" {
	copy
	make -s -C copy dist BUILD="$PWD/one"
	touch copy/Makefile
	make -s -C copy dist BUILD="$PWD/two"
	cmp one/*.tar.gz two/*.tar.gz
	tar -tzf "one/spipe-filters-$VERSION.tar.gz" | grep -v '/$' | sed "s|^spipe-filters-$VERSION/||" | sort >packed
	git -C copy ls-files | sort | diff - packed
	echo >>copy/README.md
	run ! make -s -C copy dist BUILD="$PWD/three"
	[[ $output == *'dist: there are uncommitted changes'* ]]
	[ ! -e "three/spipe-filters-$VERSION.tar.gz" ]
}

@test "release-check: names what is missing, then gives the checksum" {
	local file
	copy
	sed -i '1s/.*/0.0.1, not released yet/' copy/CHANGELOG
	for file in debian/changelog rpm/spipe-filters.spec alpine/APKBUILD arch/PKGBUILD; do
		sed -i "s/$VERSION/0.0.1/" "copy/packaging/$file"
	done
	git -C copy commit -qam old
	run ! make -s -C copy release-check BUILD="$PWD/out"
	for file in CHANGELOG debian/changelog rpm/spipe-filters.spec alpine/APKBUILD arch/PKGBUILD "no tag v$VERSION"; do
		[[ $output == *"release-check: "*"$file"* ]]
	done
	sed -i "1s/.*/$VERSION, 2026-11-25/" copy/CHANGELOG
	for file in debian/changelog rpm/spipe-filters.spec alpine/APKBUILD arch/PKGBUILD; do
		sed -i "s/0\.0\.1/$VERSION/" "copy/packaging/$file"
	done
	git -C copy tag "v$VERSION"
	git -C copy commit -qam new
	run ! make -s -C copy release-check BUILD="$PWD/out"
	[ "$(grep -c release-check: <<<"$output")" -eq 1 ]
	[[ $output == *"release-check: the tag v$VERSION is another commit"* ]]
	git -C copy tag -f "v$VERSION" >/dev/null
	run -0 make -s -C copy release-check BUILD="$PWD/out"
	[ "$output" = "$(cd out && sha256sum "spipe-filters-$VERSION.tar.gz")" ]
}

@test "packaging: every file gives the version of the Makefile" {
	local file
	for file in debian/changelog rpm/spipe-filters.spec alpine/APKBUILD arch/PKGBUILD; do
		grep -q "\b$VERSION\b" "$TREE/packaging/$file"
	done
}

@test "html: each manual page, linked to the others" {
	make -s -C "$TREE" html BUILD="$PWD"
	diff <(cd "$TREE/man" && printf '%s.html\n' *.[1578]) <(ls html)
	grep -q 'href="spipetab.5.html"' html/spipe-enc.1.html
	grep -q 'href="https://manpages.debian.org/spiped.1"' html/spipe-enc.1.html
}
