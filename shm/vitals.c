/* vitals.c - see vitals.h. */
#include "vitals.h"

#include "record.h"

int vitals_read(serry_member *member, int rank, serry_vitals *vitals, serry_error *error)
{
    (void)member, (void)rank, (void)vitals;
    return serry_fail(error, SERRY_ERR_UNSUPPORTED, "not there yet");
}

int vitals_exclude(serry_member *member, int rank, serry_exclusion how, serry_error *error)
{
    (void)member, (void)rank, (void)how;
    return serry_fail(error, SERRY_ERR_UNSUPPORTED, "not there yet");
}
