/* Revoking: a flag that every operation looks at at its entry and in its waits, sleepers that must be
 * woken, and an agreement on words of its own that must work afterwards, although some ranks left an
 * operation that others completed.
 *
 * A wait looks in this order: decided, own word sealed, flag; then it sets the asleep bit of the word
 * that it waits for, looks once more, and sleeps if the word is still what it has seen. Who publishes
 * or seals takes what was there and wakes if the bit was set. The revocation sets the flag, then
 * takes the asleep bit away from every word, and wakes where it was set: so a rank that has looked at
 * the flag before, and is just about to sleep, does not. Another one may have set the bit again
 * meanwhile, and the word looks unchanged: so whoever finds the flag after it has set the bit takes
 * it away again, and wakes.
 *
 * Here a nap ends by itself only once a rank has been killed, who may have owed a wake. In the library
 * each ends after 100 ms; nothing else should need it.
 *
 * Checked: nobody sleeps for ever; all that return from an operation return the same set, or the
 * revocation; all that return from an agreement, one step on the second row of words, return the same
 * set, whoever left the first row where.
 *
 * -DNO_SECOND_LOOK -DNO_CLEAR -DNO_TAKE_BACK -DONE_ROW -DFLAG_STOPS_CONTROL break it. */
#ifndef N
#define N 3
#endif
#ifndef OPS
#define OPS 1
#endif
#ifndef AGREES
#define AGREES 1
#endif
#ifndef REVOKES
#define REVOKES 1
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef STALLS
#define STALLS 0
#endif
#define BIT(r) (1 << (r))
#define ALL (BIT(N) - 1)
#define ROWS 2 /* of words: operations, control */
#define CELL(row, r) ((row) * N + (r))

byte word[ROWS * N];     /* the last step that was published */
bool asleep[ROWS * N];   /* the bit in the word */
byte sealed[ROWS];       /* sets of ranks */
byte sleepers[ROWS * N]; /* who sleeps on the word */
bool revoked;
byte dead, slot_dead, deaths, stalls, revokes, finished;
byte got[(OPS + AGREES + 1) * N];

#define DIES atomic { deaths < DEATHS -> deaths++; dead = dead | BIT(me); goto stop }

/* What a write to the word finds it owes: `wakes`. */
inline wake(in_row, whose) {
  if :: wakes -> sleepers[CELL(in_row, whose)] = 0 :: !wakes fi;
  wakes = false
}

proctype monitor() {
  byte r, row;
  bool wakes;
  do
  :: atomic {
       (dead & ~slot_dead) != 0 ->
       do :: (dead & ~slot_dead) & BIT(r) -> break :: else -> r++ od;
       slot_dead = slot_dead | BIT(r)
     };
     do
     :: row < ROWS ->
        atomic { sealed[row] = sealed[row] | BIT(r); wakes = asleep[CELL(row, r)] };
        wake(row, r);
        row++
     :: atomic { row == ROWS -> row = 0; r = 0; break }
     od
  :: atomic { stalls < STALLS && !(slot_dead & 1) ->
              stalls++; slot_dead = slot_dead | 1; sealed[0] = sealed[0] | 1;
              wakes = asleep[CELL(0, 0)] };
     wake(0, 0);
     atomic { sealed[1] = sealed[1] | 1; wakes = asleep[CELL(1, 0)] };
     wake(1, 0)
  :: atomic { finished == N -> break }
  od
}

#define REACHED(row, r) (word[CELL(row, r)] >= s)
#define DECIDED(row, r) (REACHED(row, r) || (sealed[row] & BIT(r)))

#define OPERATIONS 0
#ifdef ONE_ROW
#define CONTROL 0
#else
#define CONTROL 1
#endif
/* What the rank saw when it set the asleep bit. */
#define UNCHANGED(row, r)                                                                          \
  (word[CELL(row, r)] == seen && asleep[CELL(row, r)] &&                                           \
   seen_sealed == ((sealed[row] & BIT(r)) != 0))

/* The flag means nothing to the row of the agreements. */
#ifdef FLAG_STOPS_CONTROL
#define FLAG revoked
#else
#define FLAG (revoked && !control)
#endif

/* Contribute to step s of a row, wait for all; `stopped`: the flag has ended it. */
inline operation(row) {
  if
  :: DIES
  :: atomic { sealed[row] & BIT(me) -> goto stop }
  :: atomic {
       !(sealed[row] & BIT(me)) ->
       word[CELL(row, me)]++;
       s = word[CELL(row, me)];
       wakes = asleep[CELL(row, me)];
       asleep[CELL(row, me)] = false
     }
  fi;
  if
  :: DIES
  :: atomic { true -> wake(row, me) }
  fi;
  r = 0; set = 0;
  do
  :: atomic { r == N -> r = 0; break }
  :: atomic { r < N && REACHED(row, r) -> set = set | BIT(r); r++ }
  :: atomic { r < N && !REACHED(row, r) && (sealed[row] & BIT(r)) -> r++ }
  :: atomic { r < N && !DECIDED(row, r) && (sealed[row] & BIT(me)) -> goto stop }
  :: atomic { r < N && !DECIDED(row, r) && FLAG -> r = 0; set = 0; stopped = true; break }
  :: atomic { r < N && !DECIDED(row, r) && !(sealed[row] & BIT(me)) && !FLAG };
     atomic { seen = word[CELL(row, r)]; seen_sealed = (sealed[row] & BIT(r)) != 0;
              asleep[CELL(row, r)] = true };
     if
#ifndef NO_SECOND_LOOK
     :: DECIDED(row, r) || (sealed[row] & BIT(me))
     :: atomic { !DECIDED(row, r) && !(sealed[row] & BIT(me)) && FLAG ->
#ifndef NO_TAKE_BACK
                 wakes = asleep[CELL(row, r)]; asleep[CELL(row, r)] = false
#endif
               };
        wake(row, r);
        atomic { true -> r = 0; set = 0; stopped = true; seen = 0; seen_sealed = false; break }
     :: !DECIDED(row, r) && !(sealed[row] & BIT(me)) && !FLAG ->
#else
     :: true ->
#endif
        if /* the kernel compares, and enqueues, in one step */
        :: atomic { UNCHANGED(row, r) ->
                    sleepers[CELL(row, r)] = sleepers[CELL(row, r)] | BIT(me) };
           if
           :: DIES
           :: atomic { !(sleepers[CELL(row, r)] & BIT(me)) }
           :: atomic { dead != 0 -> sleepers[CELL(row, r)] = sleepers[CELL(row, r)] & ~BIT(me) }
           fi
        :: !UNCHANGED(row, r)
        fi
     fi;
     atomic { true -> seen = 0; seen_sealed = false }
  od
}

inline return_from(n) {
  r = 0;
  got[(n) * N + me] = set + 1;
  do
  :: r == N -> break
  :: else -> assert(got[(n) * N + r] == 0 || got[(n) * N + r] == set + 1); r++
  od;
  r = 0; set = 0
}

proctype rank(byte me) {
  byte op = 1, s, r, set, seen;
  bool wakes, seen_sealed, control, stopped;

  do
  :: atomic { op > OPS -> break }
  :: atomic { op <= OPS && revoked -> break }
  :: op <= OPS && !revoked ->
     operation(OPERATIONS);
     if
     :: stopped -> break
     :: DIES
     :: atomic { !stopped && (sealed[0] & BIT(me)) -> goto stop }
     :: atomic { !stopped && !(sealed[0] & BIT(me)) -> return_from(op); op++ }
     fi
  :: atomic { op <= OPS && revokes < REVOKES -> revokes++; revoked = true };
     do
     :: atomic { r == N -> r = 0; break }
     :: r < N ->
        if
        :: DIES
        :: atomic { true -> wakes = asleep[CELL(OPERATIONS, r)];
#ifndef NO_CLEAR
                    asleep[CELL(OPERATIONS, r)] = false
#endif
                  }
        fi;
        if
        :: DIES
        :: atomic { true -> wake(OPERATIONS, r); r++ }
        fi
     od
  od;
  atomic { control = true; stopped = false; op = 1 };
  do
  :: atomic { op > AGREES -> break }
  :: op <= AGREES ->
     operation(CONTROL);
     assert(!stopped);
     if
     :: DIES
     :: atomic { sealed[CONTROL] & BIT(me) -> goto stop }
     :: atomic { !(sealed[CONTROL] & BIT(me)) -> return_from(OPS + op); op++ }
     fi
  od;
  r = 0;
  do /* leave */
  :: r < ROWS ->
     atomic { sealed[r] = sealed[r] | BIT(me); wakes = asleep[CELL(r, me)] };
     wake(r, me);
     r++
  :: r == ROWS -> goto stop
  od;

stop:
  atomic { finished++; op = 0; s = 0; r = 0; set = 0; seen = 0; wakes = false; seen_sealed = false;
           control = false; stopped = false }
}

init {
  byte r;
  atomic { do :: r == N -> break :: else -> run rank(r); r++ od; run monitor(); r = 0 }
}
