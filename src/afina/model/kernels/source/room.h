#ifndef AFINA_ROOM_H
#define AFINA_ROOM_H
#include <stdlib.h>

/* A thread's own memory: it grows and is kept, as threads are. NULL when there is no more. Where each
   access is watched it is no larger than what was asked for, so that what reaches behind it is seen. */
#ifdef __SANITIZE_ADDRESS__
#define ROOM_STEP 64
#define FITS(kept, size) ((kept) == (size))
#else
#define ROOM_STEP 4096
#define FITS(kept, size) ((kept) >= (size))
#endif
static __thread struct { char *at; size_t size; } kept_room;
static inline char *room(size_t size) {
    size = (size + ROOM_STEP - 1) & ~(size_t)(ROOM_STEP - 1);
    if (!FITS(kept_room.size, size)) {
        free(kept_room.at);
        kept_room.at = aligned_alloc(64, size);
        kept_room.size = kept_room.at ? size : 0;
    }
    return kept_room.at;
}
#endif
