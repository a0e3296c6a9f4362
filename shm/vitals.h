/* vitals.h - how another rank is, and how one that lives is excluded: two members of the table. */
#ifndef SHM_VITALS_H
#define SHM_VITALS_H

#include <serry/backend.h>

/* As serry_backend.vitals and .exclude. */
int vitals_read(serry_member *member, int rank, serry_vitals *vitals, serry_error *error);
int vitals_exclude(serry_member *member, int rank, serry_exclusion how, serry_error *error);

#endif
