/* regroup: a replacement is admitted to a group while its members run operations and die.
 *
 * A newcomer signs in (`applied`), sets the flag of the current group, and waits to be invited. A
 * member that sees the flag, at the entry of an operation or in a wait, stops where it is and takes
 * part in an exchange: small operations, policy exclude, on a row of words of their own (`c`). In the
 * first each gives where it stands: n operations completed, begun (it has published a step of
 * operation n + 1), passed (the first step of n + 1 was decided for it, and it went on), and who has
 * applied. All that complete an exchange know the same values of the same givers. With m the greatest
 * n + passed,
 *   - who has not begun m is sealed, or nobody could have got so far: it is out;
 *   - if some giver has m open, it finishes m in the old group, the flag ignored, while the others
 *     repeat the exchange;
 *   - else nobody is past the first step of m + 1. Who has it open drops it, inputs intact.
 * Then the first giver makes the new group and tells where (second exchange), each settles its region
 * (third), and all begin operation m + 1 there. If a giver is lost on the way, all start again with
 * the first exchange. Members of the new group are those of the old one that no operation has reported
 * yet, and the newcomer. Who did not give is sealed there from the start, so the next operation finds
 * it absent and does as the policy wants.
 *
 * A member that leaves in order publishes a farewell first: its position, as a contribution to the
 * exchange that may come next. The monitor marks the slot of a dead rank, then seals its words in
 * every group that it finds; a member that enters a group looks at the slots afterwards.
 *
 * An operation has STEPS steps, as a direct one: its set of contributors is that of the first step,
 * and from then on its inputs may be overwritten.
 *
 * Checked: survivors that return from an operation did so in the same group, with the same set; a
 * dropped operation has its inputs; givers are always in the same exchange; nobody waits for ever; all
 * know the same new group; with -DREPORT, no member vanishes without its error; a rank that gives up
 * was really taken for dead.
 *
 * Looking at the words one after the other, and at all of them once they are decided, is the same: a
 * decision does not change. So a wait is one step here.
 *
 * -DLEAST -DGIVERS -DNO_FAREWELL -DNO_RESTART -DNO_SETTLE -DNO_SEAL_DEAD break it. */
#ifndef N
#define N 3 /* members; one newcomer */
#endif
#ifndef OPS
#define OPS 2
#endif
#ifndef STEPS
#define STEPS 2
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef STALLS
#define STALLS 0 /* living members that are sealed although they only sleep */
#endif
#define M (N + 1)
#define L (2 + DEATHS + STALLS)                 /* groups that are ever made */
#define X (3 * (1 + DEATHS + STALLS) + OPS + 2) /* exchanges in one group, at most */
#define BIT(r) (1 << (r))
#define ALL (BIT(N) - 1)

/* shared. Sets of ranks are masks. */
byte dead, slot_dead;
bool applied;
byte invite; /* to which group; 0: not yet */
bool flag;   /* of the first group: with one newcomer no other is ever flagged */
byte made = 1;
byte members[L], settled[L], first_op[L];
byte w[L * M], w_sealed[L]; /* words of operations */
byte c[M], c_sealed[L];     /* words of the exchanges; they move in the first group only */
byte gave[X * M];           /* what r gave in exchange x */
/* of the checker */
byte got[(OPS + 1) * M]; /* what r returned from operation n */
byte deaths, stalls, finished;

#define GAVE(x, r) gave[(x) * M + (r)]
#define POSITION(n, begun, passed, who) (64 | (n) << 4 | (begun) << 3 | (passed) << 2 | (who))
#define FAREWELL(n) ((n) << 4)
#define MADE(group) (128 | (group))
#define READY 192
#define PHASE(v) ((v) >> 6)
#define COUNT(v) ((v) >> 4 & 3)
#define BEGUN(v) ((v) >> 3 & 1)
#define PASSED(v) ((v) >> 2 & 1)
#define RESULT(set, g, error) (128 | (error) << 6 | (g) << 4 | (set))

/* One of the options wherever a rank may die: before each write that others see, and in each wait. */
#define DIES atomic { deaths < DEATHS -> deaths++; dead = dead | BIT(me); goto out }

/* Step s (exchange x) is decided for rank r. */
#define REACHED(r) (w[g * M + r] >= s)
#define DECIDED(r) (!(alive & BIT(r)) || REACHED(r) || (w_sealed[g] & BIT(r)))
#define GIVEN(r) (!(c_alive & BIT(r)) || c[r] >= x || (c_sealed[g] & BIT(r)))
#if N == 2
#define ALL_DECIDED (DECIDED(0) && DECIDED(1) && DECIDED(2))
#define ALL_GIVEN (GIVEN(0) && GIVEN(1) && GIVEN(2))
#elif N == 3
#define ALL_DECIDED (DECIDED(0) && DECIDED(1) && DECIDED(2) && DECIDED(3))
#define ALL_GIVEN (GIVEN(0) && GIVEN(1) && GIVEN(2) && GIVEN(3))
#endif

/* Each survivor has one. The slowest of them is enough to model: what an earlier one does is what a
 * faster one does. */
proctype monitor() {
  byte r, l;
  do
  :: atomic {
       if
       :: (dead & ~slot_dead) != 0 ->
          do :: (dead & ~slot_dead) & BIT(r) -> break :: else -> r++ od
       :: stalls < STALLS && (slot_dead & ALL) != ALL ->
          stalls++;
          do :: !(slot_dead & BIT(r)) -> break
             :: r < N - 1 && (~slot_dead & (ALL - BIT(r + 1) + 1)) != 0 -> r++
             :: (slot_dead & BIT(r)) -> r++
          od
       fi;
       slot_dead = slot_dead | BIT(r)
     };
     do
     :: atomic { l < L && !(settled[l] & BIT(r)) -> l++ }
     :: atomic { l < L && (settled[l] & BIT(r)) -> w_sealed[l] = w_sealed[l] | BIT(r) };
        atomic { c_sealed[l] = c_sealed[l] | BIT(r); l++ }
     :: atomic { l == L -> l = 0; r = 0; break }
     od
  :: atomic { finished == M -> break }
  od
}

/* Publish the next exchange, decide it, look again: `givers` and their values are the same for all. */
inline exchange(value) {
  if
  :: DIES
  :: atomic { c_sealed[g] & BIT(me) -> goto excluded }
  :: atomic {
       !(c_sealed[g] & BIT(me)) ->
       x++;
       assert(g == 0 && x < X);
       GAVE(x, me) = value;
       c[me] = x
     }
  fi;
  if
  :: DIES
  :: atomic { c_sealed[g] & BIT(me) -> goto excluded }
  :: atomic {
       ALL_GIVEN && !(c_sealed[g] & BIT(me)) ->
       givers = 0; r = 0;
       do
       :: r == M -> break
       :: else ->
          if
          :: (c_alive & BIT(r)) && c[r] >= x ->
             givers = givers | BIT(r);
             assert(PHASE(GAVE(x, r)) == PHASE(GAVE(x, me)) ||
                    (PHASE(GAVE(x, r)) == 0 && PHASE(GAVE(x, me)) == 1))
          :: else
          fi;
          r++
       od;
       c_alive = givers;
       r = 0
     }
  fi
}

/* From the first exchange: m, who is out, is anybody behind, who has applied. */
inline judge() {
  m = 0; behind = false; who = 0; r = 0;
  do
  :: r == M -> break
  :: else ->
     v = GAVE(x, r);
     if
     :: givers & BIT(r) ->
        who = who | (v & 1);
        if :: COUNT(v) + PASSED(v) > m -> m = COUNT(v) + PASSED(v) :: else fi
     :: else
     fi;
     r++
  od;
  r = 0;
  do
  :: r == M -> break
  :: else ->
     v = GAVE(x, r);
     if
     :: (givers & BIT(r)) && (COUNT(v) + BEGUN(v) < m || PHASE(v) == 0) ->
        givers = givers & ~BIT(r)
     :: (givers & BIT(r)) && !(COUNT(v) + BEGUN(v) < m || PHASE(v) == 0) && COUNT(v) < m ->
        behind = true
     :: else
     fi;
     r++
  od;
#ifdef LEAST
  /* The first design: the least n alone decides. */
  givers = c_alive; behind = true; m = 3; r = 0;
  do
  :: r == M -> break
  :: else ->
     v = GAVE(x, r);
     if :: (givers & BIT(r)) && COUNT(v) < m -> m = COUNT(v) :: else fi;
     r++
  od;
  r = 0;
  do
  :: r == M -> break
  :: else ->
     v = GAVE(x, r);
     if :: (givers & BIT(r)) && COUNT(v) == m && !BEGUN(v) -> behind = false :: else fi;
     r++
  od;
  if :: behind -> m++ :: else fi;
#endif
  c_alive = givers;
  r = 0; v = 0
}

inline return_from(error) {
  r = 0;
  v = RESULT(set, g, error);
  n++;
  got[n * M + me] = v;
  do
  :: r == M -> break
  :: else ->
     assert(got[n * M + r] == 0 || got[n * M + r] == v || ((dead | slot_dead) & BIT(r)));
     r++
  od;
  r = 0; v = 0; set = 0; open = false; passed = false; ignore = false
}

proctype rank(byte me) {
  byte g, n, s, x;            /* group; operations completed; last step and exchange there */
  byte alive, c_alive, known; /* members not known to be absent in each row; not reported */
  byte r, set, givers, had, who, m, v, to;
  bool open, passed, ignore, behind;

  if
  :: me < N -> goto enter
  :: else
  fi;
  if
  :: DIES
  :: atomic { applied = true; flag = true }
  fi;
  if
  :: DIES
  :: atomic { invite != 0 -> g = invite; n = first_op[g] }
  :: atomic { finished >= N -> goto out } /* nobody is left to invite it */
  fi;

enter:
  atomic { alive = members[g]; c_alive = alive; known = alive };
entry:
  if
  :: atomic { n == OPS -> goto leave }
  :: atomic { n < OPS && g == 0 && flag -> goto regroup }
  :: atomic { n < OPS && !(g == 0 && flag) -> goto publish }
  fi;

publish:
  if
  :: DIES
  :: atomic { w_sealed[g] & BIT(me) -> goto excluded }
  :: atomic {
       !(w_sealed[g] & BIT(me)) ->
       s++;
       w[g * M + me] = s;
       open = true
     }
  fi;
decide:
  if
  :: DIES
  :: atomic { w_sealed[g] & BIT(me) -> goto excluded }
  :: atomic { g == 0 && flag && !ignore -> goto regroup }
  :: atomic {
       ALL_DECIDED ->
       if
       :: !passed ->
          r = 0;
          do
          :: r == M -> break
          :: else -> if :: (alive & BIT(r)) && REACHED(r) -> set = set | BIT(r) :: else fi; r++
          od;
          r = 0
       :: else
       fi
     };
     if
     :: DIES
     :: atomic {
          true ->
#ifdef REPORT
          if
          :: !passed && set != alive -> /* the error of the first step */
             if :: w_sealed[g] & BIT(me) -> goto excluded :: else fi;
             alive = set;
             known = known & set;
             return_from(1);
             goto entry
          :: else
          fi;
#endif
          if :: !passed -> alive = set; passed = true :: else fi;
          if :: s % STEPS != 0 -> goto publish :: else fi;
          if :: w_sealed[g] & BIT(me) -> goto excluded :: else fi;
#ifdef REPORT
          assert((known & ~set) == 0);
#endif
          return_from(0);
          goto entry
        }
     fi
  fi;

regroup:
  exchange(POSITION(n, open, passed, applied));
  atomic {
    judge();
    if
    :: !(givers & BIT(me)) -> goto excluded
    :: (givers & BIT(me)) && behind && n < m -> ignore = true; m = 0; behind = false; goto decide
    :: (givers & BIT(me)) && behind && n >= m -> m = 0; behind = false; goto regroup
    :: (givers & BIT(me)) && !behind
    fi;
    assert(!passed); /* what is dropped has its input */
    assert(n == m);
    open = false; set = 0; m = 0;
    had = givers;
#ifdef GIVERS
    who = who << N | givers;
#else
    who = who << N | alive;
#endif
    do :: givers & BIT(r) -> break :: else -> r++ od
  };
  if
  :: atomic { r != me -> r = 0 }
  :: atomic { /* the maker */
       r == me ->
       r = 0;
       to = made;
       made++;
       assert(to < L);
       members[to] = who;
       first_op[to] = n;
#ifdef NO_SETTLE
       settled[to] = ALL & who & ~givers;
#else
       settled[to] = who & ~givers; /* those that cannot do it themselves */
#endif
       w_sealed[to] = alive & who & ~givers;
       c_sealed[to] = w_sealed[to]
     }
  fi;
  exchange(MADE(to));
  atomic {
#ifndef NO_RESTART
    if :: givers != had -> to = 0; had = 0; who = 0; goto regroup :: else fi;
#endif
    do :: had & BIT(r) -> break :: else -> r++ od;
    to = GAVE(x, r) & 63;
    r = 0;
    assert(to != 0 && members[to] == who && first_op[to] == n)
  };
  if
  :: DIES
  :: atomic { settled[to] = settled[to] | BIT(me) }
  fi;
  exchange(READY);
#ifndef NO_RESTART
  if
  :: atomic { givers != had -> to = 0; had = 0; who = 0; goto regroup }
  :: atomic { givers == had }
  fi;
#endif
#ifndef NO_SEAL_DEAD
  if
  :: DIES
  :: atomic {
       r = members[to] & slot_dead;
       w_sealed[to] = w_sealed[to] | r;
       c_sealed[to] = c_sealed[to] | r;
       r = 0
     }
  fi;
#endif
  if
  :: DIES
  :: atomic { /* invite the newcomer, and change over */
       if :: (who & BIT(N)) && invite == 0 -> invite = to :: else fi;
       g = to; s = 0; x = 0;
       known = known | who & BIT(N);
       alive = who; c_alive = who;
       to = 0; who = 0; had = 0; givers = 0;
       goto entry
     }
  fi;

leave:
#ifndef NO_FAREWELL
  if
  :: DIES
  :: atomic { g != 0 } /* nobody will regroup there */
  :: atomic {
       g == 0 ->
       if :: c_sealed[g] & BIT(me) -> goto excluded :: else fi;
       x++;
       assert(x < X);
       GAVE(x, me) = FAREWELL(n);
       c[me] = x
     }
  fi;
#endif
  atomic { w_sealed[g] = w_sealed[g] | BIT(me) };
  atomic { c_sealed[g] = c_sealed[g] | BIT(me); goto out };

excluded:
  assert(slot_dead & BIT(me));
out:
  atomic {
    finished++;
    r = 0; set = 0; givers = 0; had = 0; who = 0; m = 0; v = 0; to = 0;
    open = false; passed = false; ignore = false; behind = false;
    alive = 0; c_alive = 0; known = 0; g = 0; n = 0; s = 0; x = 0
  }
}

init {
  byte r;
  atomic {
    members[0] = ALL;
    settled[0] = ALL;
    do :: r == M -> break :: else -> run rank(r); r++ od;
    run monitor();
    r = 0
  }
}
