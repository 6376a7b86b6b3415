/* spipe-enc: carry one connection, plaintext near, encrypted far. The protocol's client. */

#include "connection.h"

int main(int argc, char **argv)
{
	static struct connection c;

	bool ended = connection_open(&c, ROLE_ENC, argc, argv) == 0 &&
	    connection_prepare_far(&c) == 0 && connection_start_far(&c) == 0 &&
	    connection_enter_sandbox(&c) == 0 && connection_receive_far(&c) == 0 &&
	    connection_meet_server(&c) == 0 && connection_relay(&c) == 0;

	return connection_close(&c, ended);
}
