/* What all kernels share. */
#ifndef AFINA_COMMON_H
#define AFINA_COMMON_H

#include <stdint.h>
#include <string.h>

typedef uint16_t bf16; /* the bits of a bfloat16 */

#include "vector.h"

/* Threads are torch's own: its OpenMP runtime is in the process before this file is loaded, and is
   called by its entry points, so that any C compiler will do and no second pool of threads spins
   beside the first. */
extern void GOMP_parallel(void (*task)(void *), void *given, unsigned threads, unsigned flags);
extern void GOMP_barrier(void);
extern int omp_get_thread_num(void);
extern int omp_get_num_threads(void);

/* Calls `task(given)` on as many threads; each asks `part_of` which part is its own. */
static inline void in_parallel(void (*task)(void *), void *given, int threads) {
    if (threads > 1)
        GOMP_parallel(task, given, (unsigned)threads, 0);
    else
        task(given);
}

/* The part of `count` things that is this thread's: from *first up to, not including, *last. */
static inline void part_of(int64_t count, int64_t *first, int64_t *last) {
    int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
    *first = count * thread / threads;
    *last = count * (thread + 1) / threads;
}

#endif
