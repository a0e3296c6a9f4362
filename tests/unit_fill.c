/* unit_fill.c - when copies for others go past the caches, and when through them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fill.h"

#define BYTES ((size_t)64 << 10)
#define MOST (3 * BYTES + 77)

enum { FAST_US = 2, SLOW_US = 20 };

/* One copy that would take so long through the caches. True: it has gone past them. */
static bool copy(fill_way *way, uint64_t us)
{
    if (fill_goes_past(way))
        return true;
    if (fill_is_timed(way))
        fill_judge(way, BYTES, us * 1000);
    return false;
}

/* How many in a row go past the caches, before one that does not; of at most `most`. */
static int row(fill_way *way, uint64_t us, int most)
{
    int past = 0;

    while (past < most && copy(way, us))
        past++;
    return past;
}

static void fast_copies_stay_in_the_caches(void **state)
{
    fill_way way = {0};
    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_false(copy(&way, FAST_US));
}

static void one_slow_copy_among_fast_ones_is_chance(void **state)
{
    fill_way way = {0};
    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_false(copy(&way, i % 40 == 0 ? SLOW_US : FAST_US));
}

static void slow_copies_go_past_the_caches_more_and_more(void **state)
{
    fill_way way = {0};
    int before = 0, all = 0, past = 0;
    (void)state;
    while (!copy(&way, SLOW_US))
        assert_in_range(++all, 1, 20);
    for (int rows = 0; rows < 20; rows++) {
        int now = row(&way, SLOW_US, 10000);
        assert_true(now >= before);
        assert_in_range(now, 1, 500);
        assert_false(copy(&way, SLOW_US)); /* the second one that is tried */
        before = now;
        past += now;
    }
    assert_true(past > 1000 && before > 50);
}

static void fast_again_they_come_back(void **state)
{
    fill_way way = {0};
    (void)state;
    for (int i = 0; i < 5000; i++)
        copy(&way, SLOW_US);
    row(&way, FAST_US, 10000);
    for (int i = 0; i < 1000; i++)
        assert_false(copy(&way, FAST_US));
    while (!copy(&way, SLOW_US))
        continue;
    assert_in_range(row(&way, SLOW_US, 10000), 1, 100); /* as at first */
}

static void whatever_way_it_goes_all_bytes_arrive(void **state)
{
    static const size_t sizes[] = {0,
                                   1,
                                   63,
                                   64,
                                   4097,
                                   FILL_BYTES - 1,
                                   FILL_BYTES,
                                   FILL_BYTES + 1,
                                   BYTES,
                                   BYTES + 1,
                                   2 * BYTES + 63,
                                   2 * BYTES + 64,
                                   MOST};
    unsigned char *from = malloc(MOST + 1), *to = malloc(MOST + 2);
    (void)state;
    assert_true(from != NULL && to != NULL);
    for (size_t i = 0; i <= MOST; i++)
        from[i] = (unsigned char)(i * 7 + i / 251);
    for (int way_of = 0; way_of < 3; way_of++) /* through, past, and through if it is timed */
        for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
            fill_way way = {.past = way_of == 1, .untimed = 5};
            memset(to, 0x5a, MOST + 2);
            fill_copy(&way, to + 1, from + 1, sizes[s], way_of == 2);
            assert_int_equal(way.untimed, way_of == 2 && sizes[s] >= FILL_BYTES ? 4 : 5);
            assert_memory_equal(to + 1, from + 1, sizes[s]);
            assert_int_equal(to[0], 0x5a);
            assert_int_equal(to[1 + sizes[s]], 0x5a);
        }
    free(from);
    free(to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fast_copies_stay_in_the_caches),
        cmocka_unit_test(one_slow_copy_among_fast_ones_is_chance),
        cmocka_unit_test(slow_copies_go_past_the_caches_more_and_more),
        cmocka_unit_test(fast_again_they_come_back),
        cmocka_unit_test(whatever_way_it_goes_all_bytes_arrive),
    };

    return cmocka_run_group_tests_name("fill", tests, NULL, NULL);
}
