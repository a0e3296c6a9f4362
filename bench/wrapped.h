/* wrapped.h - serry_ft as it is measured: over shared memory alone. */
#ifndef BENCH_WRAPPED_H
#define BENCH_WRAPPED_H

#include <serry/ft.h>

/* As serry_ft_create(), whose backend serry_ft_destroy() gives back. */
static inline int bench_wrap(serry_backend **wrapper)
{
    static const serry_backend *const k_chain[] = {&serry_backend_shm};
    serry_ft_config config = SERRY_FT_CONFIG_INIT;

    config.chain = k_chain;
    config.count = 1;
    return serry_ft_create(&config, wrapper);
}

#endif
