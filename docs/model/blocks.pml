/* A large operation by blocks (blocks.c), direct and in place, the hardest case: among ranks that die, and
 * ranks that sleep and are sealed. All have entered it.
 *
 * Turn t is a step, in which each rank makes its part of chunk t from the inputs, its piece of chunk t - 1 from
 * the parts of all, its slice of chunk t - 2 from the pieces of all, and copies chunk t - 3 out of the slices,
 * over its input. Each kind lies in two buffers, used in turn, by the parity of the step. Who reads what of whom
 * (the own block's, or one of each block) is left out: everybody reads everything.
 *
 * Where somebody is absent at a step, all others go on from chunk t - 2 as in direct share (steps.pml): each
 * worker combines from the inputs, and in the next step all copy that, over their inputs.
 *
 * Checked: who returns has the result in all chunks, and nothing in it was read from a buffer or an input that
 * had been written over; nobody waits for ever.
 *
 * -DLATE_START -DEARLY_START -DEARLY_COPY -DONE_BUFFER -DNO_RECHECK break it. */
#ifndef N
#define N 3
#endif
#ifndef CHUNKS
#define CHUNKS 2
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef STALLS
#define STALLS 1 /* living ranks that are sealed although they only sleep */
#endif
#define BIT(r) (1 << (r))
#define ALL (BIT(N) - 1)
#ifdef EARLY_COPY
#define COPY_LAG 2
#else
#define COPY_LAG 3
#endif

byte w[N], sealed, dead; /* sealed, dead: sets of ranks */
byte deaths, stalls, finished;

/* What lies in the buffers: the step for which it was written. */
byte made[3 * 2 * N], out[2 * N], set_of[2 * N];
bool over[N * CHUNKS]; /* the result lies over this chunk of the input */

#ifdef ONE_BUFFER
#define AT(step, r) (r)
#else
#define AT(step, r) (((step) & 1) * N + (r))
#endif

#define PART 0
#define PIECE (2 * N)
#define SLICE (4 * N)

#define DIES atomic { deaths < DEATHS -> deaths++; dead = dead | BIT(me); goto stop }
#define IS_DUE(lag) (turn >= (lag) && turn - (lag) < CHUNKS)

#define DECIDED(r) (w[r] >= s || (sealed & BIT(r)))
#if N == 2
#define ALL_DECIDED (DECIDED(0) && DECIDED(1))
#elif N == 3
#define ALL_DECIDED (DECIDED(0) && DECIDED(1) && DECIDED(2))
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
  :: atomic { stalls < STALLS && !(sealed & BIT(N - 1)) -> stalls++; sealed = sealed | BIT(N - 1) }
  :: atomic { finished == N -> break }
  od
}

/* All inputs of a chunk, one after the other. */
inline read_inputs(chunk) {
  r = 0;
  do
  :: atomic { r == N -> r = 0; break }
  :: atomic { r < N -> clean = clean && !over[r * CHUNKS + (chunk)]; r++ }
  od
}

/* What all wrote for the step that was decided last. */
inline read_all(kind) {
  r = 0;
  do
  :: atomic { r == N -> r = 0; break }
  :: atomic { r < N -> clean = clean && made[kind + AT(s, r)] == s; r++ }
  od
}

inline read_out() {
  r = 0;
  do
  :: atomic { r == N -> r = 0; break }
  :: atomic {
       r < N ->
       clean = clean &&
               (!(workers & BIT(r)) || (out[AT(s, r)] == s && set_of[AT(s, r)] == workers));
       r++
     }
  od
}

proctype rank(byte me) {
  byte s = 1, turn; /* step last published; turn that is on */
  byte workers = ALL, absent, r, first, length;
  bool clean = true, direct = false;

work: /* for step s + 1 */
  if
  :: direct -> goto share
  :: !direct
  fi;
  if
  :: IS_DUE(0) -> read_inputs(turn)
  :: !IS_DUE(0)
  fi;
  if
  :: IS_DUE(1) -> read_all(PART)
  :: !IS_DUE(1)
  fi;
  if
  :: IS_DUE(2) -> read_all(PIECE)
  :: !IS_DUE(2)
  fi;
  atomic {
    if :: IS_DUE(0) -> made[PART + AT(s + 1, me)] = s + 1 :: else fi;
    if :: IS_DUE(1) -> made[PIECE + AT(s + 1, me)] = s + 1 :: else fi;
    if :: IS_DUE(2) -> made[SLICE + AT(s + 1, me)] = s + 1 :: else fi
  };
  if
  :: IS_DUE(COPY_LAG) -> read_all(SLICE); over[me * CHUNKS + turn - COPY_LAG] = true
  :: !IS_DUE(COPY_LAG)
  fi;
  goto publish;

share:
  read_inputs(first);
  atomic { out[AT(s + 1, me)] = s + 1; set_of[AT(s + 1, me)] = workers };
  if
  :: length != 0 -> read_out(); over[me * CHUNKS + first - 1] = true; length = 0
  :: length == 0
  fi;

publish:
  if
  :: DIES
  :: atomic { sealed & BIT(me) -> goto leave }
  :: atomic { !(sealed & BIT(me)) -> s++; w[me] = s }
  fi;
  if
  :: DIES
  :: atomic { sealed & BIT(me) -> goto leave }
  :: atomic {
       ALL_DECIDED ->
       absent = 0; r = 0;
       do
       :: r == N -> break
       :: else -> if :: (workers & BIT(r)) && w[r] < s -> absent = absent | BIT(r) :: else fi; r++
       od;
       r = 0
     }
  fi;

  if
  :: atomic {
       absent != 0 -> /* the others go on, in direct share */
       workers = workers & ~absent;
       if
       :: direct
       :: !direct ->
          direct = true; length = 0;
#ifdef LATE_START
          first = (turn < 1 -> 0 : turn - 1)
#else
#ifdef EARLY_START
          first = (turn < 3 -> 0 : turn - 3)
#else
          first = (turn < 2 -> 0 : turn - 2)
#endif
#endif
       fi;
       absent = 0; turn = 0;
       if :: first < CHUNKS -> goto work :: else -> goto done fi
     }
  :: atomic { absent == 0 && direct -> length = 1; first++;
              if :: first < CHUNKS -> goto work :: else fi }
  :: atomic { absent == 0 && !direct -> turn++;
              if :: turn < CHUNKS + 2 -> goto work :: else fi }
  fi;
  if
  :: direct -> read_out(); over[me * CHUNKS + CHUNKS - 1] = true
  :: !direct -> read_all(SLICE); over[me * CHUNKS + CHUNKS - 1] = true
  fi;

done:
  if
#ifndef NO_RECHECK
  :: atomic { sealed & BIT(me) -> goto leave }
  :: atomic { !(sealed & BIT(me)) ->
#else
  :: atomic { true ->
#endif
       assert(clean);
       r = 0;
       do :: r == CHUNKS -> break :: else -> assert(over[me * CHUNKS + r]); r++ od;
       r = 0
     }
  fi;
  if /* the next operation begins, and its second step uses the same buffers again */
  :: atomic { sealed & BIT(me) -> goto leave }
  :: atomic { !(sealed & BIT(me)) -> s++; w[me] = s }
  fi;
  atomic {
    ALL_DECIDED ->
    made[PART + AT(s + 1, me)] = 0; made[PIECE + AT(s + 1, me)] = 0;
    made[SLICE + AT(s + 1, me)] = 0; out[AT(s + 1, me)] = 0
  };
leave:
  atomic { finished++; dead = dead | BIT(me); goto end };
stop:
  atomic { finished++ };
end:
  skip
}

init {
  byte i;
  atomic {
    do :: i == N -> break :: else -> w[i] = 1; run rank(i); i++ od;
    run monitor()
  }
}
