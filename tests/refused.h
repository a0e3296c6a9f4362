/* refused.h - configurations and variables that make no job. */
#ifndef TEST_REFUSED_H
#define TEST_REFUSED_H

#include <serry/types.h>

/* The message must hold all three texts. */
void expect_invalid(const serry_config *config, const char *a, const char *b, const char *c);

/* It must name the variable, the junk that is put there, and what was expected. */
void expect_junk(const serry_config *config, const char *variable, const char *junk,
                 const char *expected);

#endif
