#ifndef SPIPE_CTL_CHECK_H
#define SPIPE_CTL_CHECK_H

#include "outcome.h"

/*
 * Check /etc/spipetab and print what is wrong with it. Returns 0, or -1 with the outcome set: 65 if there
 * are errors, 66 or 73 if it cannot be checked.
 */
int check_before_apply(struct outcome *);

#endif
