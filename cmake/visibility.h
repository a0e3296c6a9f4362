/* visibility.h - put before every source of the library, which is compiled with hidden visibility:
 * what the public headers declare is visible from outside, and nothing else. libserry.map is the
 * list of the same names. */
#pragma GCC visibility push(default)
#include <serry/backend.h>
#include <serry/faulty.h>
#include <serry/ft.h>
#include <serry/health.h>
#include <serry/recovery.h>
#include <serry/serry.h>
#include <serry/timeout.h>
#pragma GCC visibility pop
