/* A large sum in place, each range of which is written into all vectors by the rank that makes it, although
 * stores cannot be recalled (shm/spread.c, shm/writes.h).
 *
 * All have entered (a first step, as in steps.pml), so all inputs count. Each rank makes its range piece by
 * piece: it adds the inputs up in one of two buffers, says that the piece is there, says that it writes, looks
 * whether its word is sealed or the communicator revoked, and copies the piece into the vectors of all whose
 * words are not sealed. Then it publishes. Where a rank is missing after that, the others wait until it does
 * not write, or is gone; each takes what is left of its range from its buffer or its inputs into memory of its
 * own, publishes once more, and puts it into its vector.
 *
 * A killed rank is known to be dead at once, and runs on for a while: its last thread ends later, which is
 * when it is gone. A sleeper is sealed although it lives, and goes on; never while it writes. Who finds a
 * revocation while it waits, or its own word sealed, leaves, when none of the others writes, or is gone that
 * did: its vector is something else from then on.
 *
 * Checked: who returns has the sum in its whole vector; nobody writes into the vector of a rank that has left;
 * nobody waits for ever.
 *
 * -DNO_WAIT -DNO_LOOK -DLATE_LOOK -DNO_TARGET -DNO_LEAVE -DNO_BUFFER -DONE_BUFFER -DNO_STEP break it. */
#ifndef N
#define N 2
#endif
#ifndef PIECES
#define PIECES 3
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef STALLS
#define STALLS 1
#endif
#ifndef REVOKES
#define REVOKES 0
#endif
#if N == 2
#define SUM 3
#elif N == 3
#define SUM 7
#endif
#define BIT(r) (1 << (r))
#define AT(r, range, piece) ((r) * N * PIECES + (range) * PIECES + (piece))
#ifdef ONE_BUFFER
#define BUFFER(r, piece) (r)
#else
#define BUFFER(r, piece) (2 * (r) + (piece) % 2)
#endif

byte vector[N * N * PIECES]; /* of rank r: at first r's input, in the end the sum */
byte buffer[2 * N], holds[2 * N]; /* a piece, and which one */
byte said[N];                /* pieces in a buffer, as group_cell.pieces */
bool writes[N];
byte word[N];                /* steps published */
bool sealed[N], killed[N], gone[N], left[N];
bool revoked;
byte kills, stalls, revokes;

/* What was killed ends at some time: at any of its steps, or never before it would leave. */
inline may_end() { if :: killed[me] -> goto end :: true fi }

inline add_up(range, piece) {
  d_step {
    acc = 0; q = 0;
    do :: q < N -> acc = acc + vector[AT(q, range, piece)]; q++ :: else -> break od;
    q = 0
  }
}

inline await_quiet(whom) {
#ifndef NO_WAIT
  (!writes[whom] || gone[whom]);
#else
  skip;
#endif
}

/* With its vector. */
inline leave() {
#ifndef NO_LEAVE
  q = 0;
  do :: q == N -> break
     :: q < N -> if :: q != me -> (!writes[q] || gone[q]) :: q == me fi; q++
  od;
#endif
  left[me] = true;
  goto end
}

inline decide() {
  r = 0; lost = 0;
  do
  :: r == N -> break
  :: r < N && word[r] >= step -> r++
  :: r < N && word[r] < step && sealed[r] ->
     await_quiet(r);
     lost = lost | BIT(r); r++
  :: r < N && word[r] < step && sealed[me] -> leave()
  :: r < N && word[r] < step && revoked -> leave()
  :: r < N && word[r] < step && killed[me] -> goto end
  od;
  r = 0
}

inline publish() {
  atomic { if :: sealed[me] -> skip :: !sealed[me] -> word[me] = step fi };
  if :: word[me] < step -> leave() :: word[me] == step fi
}

proctype rank(byte me) {
  byte k, r, q, acc, lost, gaps, step = 1, from[N], own[N * PIECES];

  k = 0;
  do
  :: k == PIECES -> break
  :: k < PIECES ->
     may_end();
     add_up(me, k);
     atomic { buffer[BUFFER(me, k)] = acc; holds[BUFFER(me, k)] = k };
#ifndef NO_BUFFER
     said[me] = k + 1;
#endif
#ifdef LATE_LOOK
     if :: sealed[me] || revoked -> break :: else fi;
#endif
     writes[me] = true;
#if !defined(NO_LOOK) && !defined(LATE_LOOK)
     if :: sealed[me] || revoked -> writes[me] = false; break :: else fi;
#endif
     r = 0;
     do
     :: r == N -> break
     :: r < N ->
        may_end();
#ifndef NO_TARGET
        if
        :: sealed[r] -> skip
        :: else ->
#endif
           may_end();
           atomic { assert(!left[r]); vector[AT(r, me, k)] = buffer[BUFFER(me, k)] }
#ifndef NO_TARGET
        fi;
#endif
        r++
     od;
     writes[me] = false;
#ifdef NO_BUFFER
     said[me] = k + 1;
#endif
     k++
  od;
  r = 0; k = 0;
  publish();
  decide();
  if :: lost == 0 -> goto done :: lost != 0 fi;

  gaps = lost; r = 0;
  do
  :: r == N -> break
  :: r < N && !(gaps & BIT(r)) -> r++
  :: r < N && (gaps & BIT(r)) ->
     q = said[r];
#ifdef NO_BUFFER
     from[r] = q;
#else
     from[r] = (q == 0 -> 0 : q - 1);
#endif
     k = from[r];
     do
     :: k == PIECES -> break
     :: k < PIECES ->
        if
#ifndef NO_BUFFER
        :: k < said[r] ->
           atomic { assert(holds[BUFFER(r, k)] == k); own[r * PIECES + k] = buffer[BUFFER(r, k)] }
        :: k >= said[r] -> add_up(r, k); own[r * PIECES + k] = acc
#else
        :: add_up(r, k); own[r * PIECES + k] = acc
#endif
        fi;
        k++
     od;
     r++
  od;
  r = 0; k = 0; acc = 0;
#ifndef NO_STEP
  step = 2;
  publish();
  decide();
#endif
  r = 0;
  do
  :: r == N -> break
  :: r < N && !(gaps & BIT(r)) -> r++
  :: r < N && (gaps & BIT(r)) ->
     k = from[r];
     do :: k == PIECES -> break
        :: k < PIECES -> atomic { assert(!left[me]); vector[AT(me, r, k)] = own[r * PIECES + k]; k++ } od;
     r++
  od;

done:
  if :: sealed[me] || revoked -> leave() :: !sealed[me] && !revoked fi;
  d_step {
    r = 0;
    do :: r < N * PIECES -> assert(vector[me * N * PIECES + r] == SUM); r++ :: else -> break od
  }
  left[me] = true;
end:
  if :: killed[me] -> gone[me] = true :: !killed[me] fi
}

/* Who kills, seals and revokes. */
proctype world() {
  byte q;

end:
  do
  :: atomic { kills < KILLS -> kills++; q = 0; do :: q < N - 1 -> q++ :: break od;
              if :: !left[q] && !killed[q] -> killed[q] = true :: else fi }
  :: atomic { q = 0; do :: q < N - 1 -> q++ :: break od;
              if :: killed[q] && !sealed[q] -> sealed[q] = true :: else fi }
  :: atomic { stalls < STALLS -> q = 0; do :: q < N - 1 -> q++ :: break od;
              if :: !left[q] && !sealed[q] && !writes[q] -> stalls++; sealed[q] = true :: else fi }
  :: atomic { revokes < REVOKES -> revokes++; revoked = true }
  od
}

init {
  byte r, i;

  d_step {
    do :: r < N ->
          i = 0;
          do :: i < N * PIECES -> vector[r * N * PIECES + i] = BIT(r); i++ :: else -> break od;
          r++
       :: else -> break
    od
  }
  atomic { r = 0; do :: r < N -> run rank(r); r++ :: else -> break od; run world() }
}
