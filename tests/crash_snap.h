/* crash_snap.h - what survives the victim of crash_step.h, as it is seen from outside. */
#ifndef TEST_CRASH_SNAP_H
#define TEST_CRASH_SNAP_H

#include "crash_step.h"

/* Is it not what it was at the last look? Looks for the arena first, where that may have come. */
bool snap_has_changed(stepper *s);

#endif
