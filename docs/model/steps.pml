/* An operation of several steps (operation.c), staged or by direct share, among ranks that die, and
 * ranks that sleep and are sealed.
 *
 * Each rank has one sticky word: w, the last step that it has published, and a sealed bit. A step is
 * decided for a rank whose word has reached it (it takes part) or is sealed below it (it is absent).
 * The first step of an operation enters: who is absent there has failed, and the policy says what
 * follows: an error on all (REPORT, default), or the operation goes on without it (-DEXCLUDE). Then:
 *
 * staged   turn t copies chunk t into `in`, combines a slice of chunk t - 1 into `out`, and copies the
 *          slices of chunk t - 2 into a private room. Who is absent at any later step makes all
 *          others drop what they have, and return the error or begin again without it.
 * direct   (-DDIRECT) chunk by chunk, each worker combines a slice of all inputs where they lie, and in
 *          the next step all copy the slices together, over their inputs. If a worker is absent, the
 *          others combine that chunk again in new slices. The operation never fails any more.
 *
 * Both buffers of a rank are used in turn, by the parity of the step.
 *
 * Checked: all that return from an operation, also ones that die later, return the same set of
 * contributors or the same error; nothing is handed out that was read from a buffer or an input
 * which had been written over; an error leaves the input as it was; nobody waits for ever.
 *
 * -DPLAIN_STORE -DNO_RECHECK -DNO_DROP -DONE_BUFFER (staged) -DNO_NEW_SLICES -DEARLY_COPY (direct)
 * break it. -DSCRIBBLE: a rank that was sealed uses its input for something else (see README.md). */
#ifndef N
#define N 3
#endif
#ifndef OPS
#define OPS 2
#endif
#ifndef CHUNKS
#define CHUNKS 1
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef STALLS
#define STALLS 1 /* living ranks that are sealed although they only sleep */
#endif
#define BIT(r) (1 << (r))
#define ALL (BIT(N) - 1)

byte w[N], sealed, dead; /* sealed, dead: sets of ranks */
byte deaths, stalls, finished;
byte got[(OPS + 1) * N]; /* set of contributors + 1, + 128 for the error; 0: not returned yet */

/* What lies in the buffers: the step for which it was written. */
byte in[2 * N], out[2 * N], set_of[2 * N];
byte over[N * CHUNKS]; /* the operation whose result lies over a chunk of the input */

#ifdef ONE_BUFFER
#define AT(step, r) (r)
#else
#define AT(step, r) (((step) & 1) * N + (r))
#endif

#define DIES atomic { deaths < DEATHS -> deaths++; dead = dead | BIT(me); goto stop }

#define DECIDED(r) (!(alive & BIT(r)) || w[r] >= s || (sealed & BIT(r)))
#if N == 2
#define ALL_DECIDED (DECIDED(0) && DECIDED(1))
#elif N == 3
#define ALL_DECIDED (DECIDED(0) && DECIDED(1) && DECIDED(2))
#elif N == 4
#define ALL_DECIDED (DECIDED(0) && DECIDED(1) && DECIDED(2) && DECIDED(3))
#endif

/* Seals the dead, and some that only sleep. */
proctype monitor() {
  byte r;
  do
  :: atomic {
       (dead & ~sealed) != 0 ->
       do :: (dead & ~sealed) & BIT(r) -> break :: else -> r++ od;
       sealed = sealed | BIT(r);
       r = 0
     }
  :: atomic { stalls < STALLS && !(sealed & BIT(0)) -> stalls++; sealed = sealed | BIT(0) }
  :: atomic { stalls < STALLS && !(sealed & BIT(1)) -> stalls++; sealed = sealed | BIT(1) }
  :: atomic { finished == N -> break }
  od
}

inline return_from(value) {
  got[op * N + me] = value;
  r = 0;
  do
  :: r == N -> break
  :: else -> assert(got[op * N + r] == 0 || got[op * N + r] == value); r++
  od;
  r = 0; turn = 0; first = 0; length = 0; clean = true;
  op++
}

/* Read what the others wrote for the step that was decided last: inputs, or slices of `set`. */
inline read_in() {
  r = 0;
  do
  :: atomic { r == N -> r = 0; break }
  :: atomic { r < N -> clean = clean && (!(alive & BIT(r)) || in[AT(s, r)] == s); r++ }
  od
}

inline read_out(set) {
  r = 0;
  do
  :: atomic { r == N -> r = 0; break }
  :: atomic {
       r < N ->
       clean = clean && (!((set) & BIT(r)) || (out[AT(s, r)] == s && set_of[AT(s, r)] == (set)));
       r++
     }
  od
}

proctype rank(byte me) {
  byte op = 1, s, turn;       /* operation; last step published; step within the operation */
  byte alive = ALL, absent, r;
  byte workers, first, length; /* direct: who combines, how many chunks are done; copy out next? */
  bool clean = true;

next:
  if
  :: atomic { op > OPS -> goto leave }
  :: atomic { op <= OPS }
  fi;

work: /* for step s + 1 */
#ifdef DIRECT
  if
  :: turn == 0
  :: turn != 0 ->
     r = 0; /* combine a slice: all inputs must still be there */
     do
     :: atomic { r == N -> r = 0; break }
     :: atomic { r < N ->
                 clean = clean && (!(alive & BIT(r)) || over[r * CHUNKS + first] < op); r++ }
     od;
     atomic { out[AT(s + 1, me)] = s + 1; set_of[AT(s + 1, me)] = workers };
#ifdef EARLY_COPY
     over[me * CHUNKS + first] = op;
#endif
     if
     :: length != 0 ->
        read_out(workers);
        if
        :: DIES
        :: atomic { true -> over[me * CHUNKS + first - 1] = op; length = 0 }
        fi
     :: length == 0
     fi
  fi;
#else
  if
  :: turn == 0
  :: turn != 0 ->
     if
     :: turn >= 2 && turn - 2 < CHUNKS -> read_in() /* combine a slice */
     :: !(turn >= 2 && turn - 2 < CHUNKS)
     fi;
     if
     :: turn >= 3 -> read_out(alive)
     :: turn < 3
     fi;
     atomic {
       if :: turn - 1 < CHUNKS -> in[AT(s + 1, me)] = s + 1 :: else fi;
       if :: turn >= 2 -> out[AT(s + 1, me)] = s + 1; set_of[AT(s + 1, me)] = alive :: else fi
     }
  fi;
#endif

  if
  :: DIES
#ifdef PLAIN_STORE
  :: atomic { true -> s++; w[me] = s } /* a sleeper ignores its seal */
#else
  :: atomic { sealed & BIT(me) -> goto excluded }
  :: atomic { !(sealed & BIT(me)) -> s++; w[me] = s }
#endif
  fi;
  if
  :: DIES
  :: atomic { sealed & BIT(me) -> goto excluded }
  :: atomic {
       ALL_DECIDED ->
       absent = 0; r = 0;
       do
       :: r == N -> break
       :: else -> if :: (alive & BIT(r)) && w[r] < s -> absent = absent | BIT(r) :: else fi; r++
       od;
       r = 0
     }
  fi;

#ifdef DIRECT
  if
  :: atomic { turn != 0 && (workers & absent) != 0 -> /* lost workers: new slices */
              workers = workers & ~absent; absent = 0;
#ifdef NO_NEW_SLICES
              skip
#else
              goto work
#endif
            }
  :: atomic { turn != 0 && (workers & absent) == 0 -> absent = 0 }
  :: atomic { turn == 0 }
  fi;
  if
  :: atomic { turn != 0 -> length = 1; first++ };
     if
     :: first < CHUNKS -> goto work
     :: first == CHUNKS -> read_out(workers);
        if
        :: DIES
        :: atomic { true -> over[me * CHUNKS + first - 1] = op; goto done }
        fi
     fi
  :: turn == 0
  fi;
#endif

#ifdef NO_DROP
  if :: turn != 0 -> absent = 0 :: turn == 0 fi;
#endif
  if
  :: absent == 0
  :: DIES
#ifndef NO_RECHECK
  :: atomic { absent != 0 && (sealed & BIT(me)) -> goto excluded }
  :: atomic {
       absent != 0 && !(sealed & BIT(me)) ->
#else
  :: atomic {
       absent != 0 ->
#endif
       alive = alive & ~absent;
       assert(over[me * CHUNKS] < op);
#ifdef EXCLUDE
       absent = 0; clean = true;
       if :: turn != 0 -> turn = 0; goto work :: else fi
#else
       absent = 0;
       return_from(128 + alive + 1);
       goto next
#endif
     }
  fi;
  atomic { turn++; workers = alive };
#ifdef DIRECT
  goto work;
#else
  if
  :: turn < CHUNKS + 2 -> goto work
  :: turn == CHUNKS + 2 -> read_out(alive)
  fi;
#endif

done:
  if
  :: DIES
#ifndef NO_RECHECK
  :: atomic { sealed & BIT(me) -> goto excluded }
  :: atomic {
       !(sealed & BIT(me)) ->
#else
  :: atomic {
       true ->
#endif
       assert(clean);
       return_from(alive + 1);
       goto next
     }
  fi;

excluded:
#ifdef SCRIBBLE
  over[me * CHUNKS + first] = 255;
#endif
leave:
  sealed = sealed | BIT(me);
stop:
  atomic { finished++; s = 0; turn = 0; alive = 0; absent = 0; r = 0; workers = 0; first = 0;
           length = 0; clean = false; op = 0 }
}

init {
  byte r;
  atomic { do :: r == N -> break :: else -> run rank(r); r++ od; run monitor(); r = 0 }
}
