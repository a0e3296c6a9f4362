/* Digests (shm/levels.c): who has seen that a whole block has published a step tells it to the others.
 *
 * Words, buffers and sealing are those of uniform.pml. The members that took part in the last operation
 * are divided into blocks of two, in their order. Each member decides its own block by the words. The
 * first of a block, if both have published, combines their inputs into its part, looks at its own word
 * again, and stores the step in its digest. The others either find that digest, and read the part, or
 * read the words of that block, and its inputs: whichever, whenever, as chance will have it. Nobody waits
 * for a digest. Parts and digests exist twice, as the buffers do.
 *
 * Checked: all that return from operation s, also those that die later, return the same set of
 * contributors; no result was made of a buffer, or of a part, that had been written over; nobody waits for
 * ever.
 *
 * -DTELL_EARLY -DTELL_ABSENT -DTELL_FIRST -DONE_BUFFER -DNO_RECHECK -DWAIT_FOR_DIGEST break it.
 * -DNO_TELLERS_LOOK does not: see README.md. */
#ifndef N
#define N 3
#endif
#ifndef OPS
#define OPS 3
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef STALLS
#define STALLS 1 /* living ranks that may be sealed although they only sleep */
#endif
#define BIT(r) (1 << (r))
#define IN(r) ((alive >> (r)) & 1)
#if N == 3
#define INDEX(r) (((r) > 0) * IN(0) + ((r) > 1) * IN(1))
#elif N == 4
#define INDEX(r) (((r) > 0) * IN(0) + ((r) > 1) * IN(1) + ((r) > 2) * IN(2))
#endif
#define BLOCK(r) (INDEX(r) / 2)
#define IS_FIRST(r) (INDEX(r) % 2 == 0)
#ifdef ONE_BUFFER
#define DIGEST(r) (r)
#else
#define DIGEST(r) ((s & 1) * N + (r))
#endif

byte seq[N]; bool sealed[N]; bool dead[N];
byte deaths, stalls;
byte got[(OPS + 1) * N]; /* contributor set + 1 that rank r returned for s; 0: not yet */
byte buf[2 * N];         /* which operation's input lies in buffer (s & 1) of rank r */
byte digest[2 * N];      /* the step that the digest tells */
byte part[2 * N];        /* of which operation's inputs it is made; 0: of others */
byte finished;

inline die() { if :: deaths < DEATHS -> deaths++; dead[me] = true; goto out :: true fi }

/* By the word. */
inline decide(q) {
  do
  :: atomic { seq[q] >= s -> set = set | BIT(q); break }
  :: atomic { seq[q] < s && sealed[q] -> break }
  :: atomic { seq[q] < s && !sealed[q] && dead[q] -> sealed[q] = true }
  :: atomic { seq[q] < s && !sealed[q] && !dead[q] && q != me && stalls < STALLS -> stalls++; sealed[q] = true }
  :: sealed[me] -> goto out
  od
}

/* As decided: by the digest of the block that q is the first of, or by words. */
inline look() {
  atomic { b = 0; p = r + 1; do :: p < N && !IN(p) -> p++ :: else -> break od; /* the second one */
           if :: p == N -> b = 1 :: else fi };
  if
#ifdef WAIT_FOR_DIGEST
  :: b == 0 -> digest[DIGEST(r)] >= s;
#else
  :: b == 0 && digest[DIGEST(r)] == s ->
#endif
     atomic { set = set | BIT(r) | BIT(p); told = told | BIT(r) | BIT(p) }
#ifdef WAIT_FOR_DIGEST
  :: b == 1 -> decide(r)
#else
  :: true -> decide(r); if :: p < N -> decide(p) :: else fi
#endif
  fi;
  atomic { b = 0; p = 0 }
}

proctype rank(byte me) {
  byte s = 1, r, p, b, set, told, alive = BIT(N) - 1; bool clean;
  do
  :: s > OPS -> break
  :: else ->
     die();
     buf[(s & 1) * N + me] = s;
     die();
     atomic { if :: sealed[me] -> goto out :: else -> seq[me] = s fi };
     die();
#ifdef TELL_EARLY
     if :: IS_FIRST(me) -> part[DIGEST(me)] = s; digest[DIGEST(me)] = s :: else fi;
#endif
     atomic { set = 0; told = 0; clean = true; r = 0 };
     do /* the own block */
     :: r == N -> break
     :: else -> if :: IN(r) && BLOCK(r) == BLOCK(me) -> decide(r) :: else fi; r++
     od;
     atomic { b = set; r = 0 };
     do /* its inputs */
     :: r == N -> break
     :: else -> if :: (set & BIT(r)) && buf[(s & 1) * N + r] != s -> clean = false :: else fi; r++
     od;
     atomic {
       r = 0; p = 0;
       do :: r == N -> break :: else -> if :: IN(r) && BLOCK(r) == BLOCK(me) -> p = p | BIT(r) :: else fi; r++ od;
       r = 0
     };
     if /* the first tells */
#ifdef TELL_ABSENT
     :: IS_FIRST(me) ->
#else
     :: IS_FIRST(me) && p == set ->
#endif
        die();
        if
#ifndef NO_TELLERS_LOOK
        :: sealed[me]
        :: !sealed[me] ->
#else
        :: true ->
#endif
#ifdef TELL_FIRST
           digest[DIGEST(me)] = s; die();
           part[DIGEST(me)] = (clean -> s : 0)
#else
           part[DIGEST(me)] = (clean -> s : 0); die();
           digest[DIGEST(me)] = s
#endif
        fi
     :: else
     fi;
     atomic { b = 0; p = 0; r = 0 };
     do /* the other blocks */
     :: r == N -> break
     :: else -> if :: IN(r) && IS_FIRST(r) && BLOCK(r) != BLOCK(me) -> look() :: else fi; r++
     od;
     r = 0;
     do /* their parts, or inputs */
     :: r == N -> break
     :: else ->
        if
        :: IN(r) && BLOCK(r) != BLOCK(me) && (told & BIT(r)) && IS_FIRST(r) && part[DIGEST(r)] != s -> clean = false
        :: IN(r) && BLOCK(r) != BLOCK(me) && (set & ~told & BIT(r)) && buf[(s & 1) * N + r] != s -> clean = false
        :: else
        fi;
        r++
     od;
     die();
#ifndef NO_RECHECK
     if :: sealed[me] -> goto out :: else fi;
#endif
     d_step {
       assert(clean);
       got[s * N + me] = set + 1;
       r = 0;
       do
       :: r == N -> break
       :: else -> assert(got[s * N + r] == 0 || got[s * N + r] == set + 1); r++
       od;
       r = 0; alive = set; set = 0; told = 0
     };
     s++
  od;
out: finished++
}
init { byte i = 0; atomic { do :: i == N -> break :: else -> run rank(i); i++ od } ; finished == N }
