/* spipe-dec: carry one connection, encrypted near, plaintext far. The protocol's server. */

#include "connection.h"

int main(int argc, char **argv)
{
	static struct connection c;

	bool ended = connection_open(&c, ROLE_DEC, argc, argv) == 0 &&
	    connection_prepare_far(&c) == 0 && connection_enter_sandbox(&c) == 0 &&
	    handshake_server_meet(&c.secrets->handshake, &c.near, c.ring.secret, c.ring.count,
		&c.key, c.deadline, &c.outcome) == 0 &&
	    connection_check_rules(&c) == 0 && connection_start_far(&c) == 0 &&
	    handshake_server_answer(&c.secrets->handshake, &c.near, c.deadline, &c.outcome) == 0 &&
	    connection_receive_far(&c) == 0 && connection_relay(&c) == 0;

	return connection_close(&c, ended);
}
