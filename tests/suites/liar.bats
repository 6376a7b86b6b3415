#!/usr/bin/env bats
# shellcheck shell=bash
# A peer that lies: peer.py plays spiped's part, wrongly, with one of our programs at a time.
# What each case does is said in peer.py.
load ../helpers/lib

@test "the lying peer knows the protocol: known answers" {
	"$PEER" vectors "$TESTS/suites/vectors.txt"
}

@test "the lying peer knows the protocol: spiped and spipe" {
	"$PEER" upstream
}

@test "every case of the lying peer is run here" {
	diff <("$PEER" list) <(sed -n 's/.*PEER" case //p' "$BATS_TEST_FILENAME" | grep -v '"')
}

@test "spipe-dec: wrong key" {
	"$PEER" case wrong-key-dec
}

@test "spipe-enc: wrong key" {
	"$PEER" case wrong-key-enc
}

@test "spipe-dec: flipped nonce" {
	"$PEER" case flipped-nonce-dec
}

@test "spipe-enc: flipped nonce" {
	"$PEER" case flipped-nonce-enc
}

@test "spipe-dec: flipped hello" {
	"$PEER" case flipped-hello-dec
}

@test "spipe-enc: flipped hello" {
	"$PEER" case flipped-hello-enc
}

@test "spipe-dec: chosen y" {
	"$PEER" case chosen-y-dec
}

@test "spipe-enc: chosen y" {
	"$PEER" case chosen-y-enc
}

@test "spipe-dec: no pfs refused" {
	"$PEER" case no-pfs-refused-dec
}

@test "spipe-enc: no pfs refused" {
	"$PEER" case no-pfs-refused-enc
}

@test "spipe-dec: in pieces" {
	"$PEER" case in-pieces-dec
}

@test "spipe-enc: in pieces" {
	"$PEER" case in-pieces-enc
}

@test "spipe-dec: not spiped" {
	"$PEER" case not-spiped-dec
}

@test "spipe-enc: not spiped" {
	"$PEER" case not-spiped-enc
}

@test "spipe-dec: reflected handshake" {
	"$PEER" case reflected-handshake-dec
}

@test "spipe-enc: reflected handshake" {
	"$PEER" case reflected-handshake-enc
}

@test "spipe-dec: cut handshake" {
	"$PEER" case cut-handshake-dec
}

@test "spipe-enc: cut handshake" {
	"$PEER" case cut-handshake-enc
}

@test "spipe-dec: silence" {
	"$PEER" case silence-dec
}

@test "spipe-enc: silence" {
	"$PEER" case silence-enc
}

@test "spipe-dec: after the deadline" {
	"$PEER" case after-the-deadline-dec
}

@test "spipe-enc: after the deadline" {
	"$PEER" case after-the-deadline-enc
}

@test "spipe-dec: lengths" {
	"$PEER" case lengths-dec
}

@test "spipe-enc: lengths" {
	"$PEER" case lengths-enc
}

@test "spipe-dec: flipped packet" {
	"$PEER" case flipped-packet-dec
}

@test "spipe-enc: flipped packet" {
	"$PEER" case flipped-packet-enc
}

@test "spipe-dec: order" {
	"$PEER" case order-dec
}

@test "spipe-enc: order" {
	"$PEER" case order-enc
}

@test "spipe-dec: reflected packet" {
	"$PEER" case reflected-packet-dec
}

@test "spipe-enc: reflected packet" {
	"$PEER" case reflected-packet-enc
}

@test "spipe-dec: cut packet" {
	"$PEER" case cut-packet-dec
}

@test "spipe-enc: cut packet" {
	"$PEER" case cut-packet-enc
}

@test "spipe-dec: cut between" {
	"$PEER" case cut-between-dec
}

@test "spipe-enc: cut between" {
	"$PEER" case cut-between-enc
}

@test "spipe-dec: broken after end" {
	"$PEER" case broken-after-end-dec
}

@test "spipe-enc: broken after end" {
	"$PEER" case broken-after-end-enc
}

@test "spipe-dec: reset wire" {
	"$PEER" case reset-wire-dec
}

@test "spipe-enc: reset wire" {
	"$PEER" case reset-wire-enc
}

@test "spipe-dec: reset plain" {
	"$PEER" case reset-plain-dec
}

@test "spipe-enc: reset plain" {
	"$PEER" case reset-plain-enc
}

@test "spipe-dec: broken with children" {
	"$PEER" case broken-with-children-dec
}

@test "spipe-enc: broken with children" {
	"$PEER" case broken-with-children-enc
}
