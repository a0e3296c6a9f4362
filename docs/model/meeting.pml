/* meeting.c: the members of a group stop, find out where they stand, and go on in a new group, with a
 * newcomer in the place of a rank that failed before all this begins.
 *
 * The newcomer applies, calls the group's members to a meeting, and waits to be invited. A member that
 * hears the call, when it begins an operation or waits in one, stops where it is and takes part in
 * exchanges: one step each on the control words, where who does not come is left out. In the first each
 * gives its position (n, begun, passed, dropped), and all judge alike: EXCLUDED, FINISH (run the
 * operation in the old group, deaf), AGAIN, or REPLACE. Then
 *   - the first of them has made the new group and tells where, and who can see that the operation it
 *     has open is decided by now says so: if one does, all finish it instead;
 *   - each has given memory to its region;
 * and all enter the new group. If the set of givers shrinks between two exchanges, all begin again. Who
 * has given its position, and then sees the operation it has open decided, leaves the exchange open,
 * finishes the operation, and goes on with the exchange at the next one. So does who has said in the
 * second exchange that it sees that, or that it has left the first.
 * Who did not come is sealed in the new group. The monitor marks the slot of a dead rank, then seals its
 * words in every group that it finds; who enters a group looks at the slots afterwards.
 *
 * Policies: EXCLUDE; -DREPORT; -DWAIT (an operation that finds a member missing is dropped, and waits
 * for a meeting). An operation has STEPS steps. Its set of contributors is that of the first step, and
 * from then on its input may be overwritten (direct); with -DSTAGED every step looks for missing
 * members, and the input stays.
 *
 * -DAGREE: between the first operation and the second all agree, on the control words. CALLS: how often
 * a member calls a meeting by itself. LEAVES: members that may finalize before they have done all.
 * -DPART: the members also wait for each other somewhere else, after the first operation.
 *
 * Checked: all that return from an operation (or agree), also those that die later, did so in the same
 * group, with the same set; what is dropped has its input; members that meet are always in the same exchange; all know the
 * same new group; with -DREPORT, no member vanishes without its error; who is excluded was taken for
 * dead; nobody waits for ever.
 *
 * Looking at the words one after the other, and at all of them once they are decided, is the same: a
 * decision does not change. So a wait is one step here.
 *
 * -DNO_PASSED -DGIVERS -DNO_DECIDED -DDROPPED_OUT -DNO_RESTART -DNO_SETTLE -DNO_SEAL_MISSING
 * -DNO_SEAL_DEAD -DINVITE_FIRST -DCOUNT_LATE -DNO_LAST_LOOK -DAGREE_BLIND
 * -DSTAY -DSTAY_SAID -DLEAVE_UNSAID -DFINISH_TWICE -DSTALE break it. */
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
#ifndef CALLS
#define CALLS 0
#endif
#ifndef LEAVES
#define LEAVES 0
#endif
#define M (N + 1)
#define L (2 + DEATHS + STALLS + CALLS + OPS) /* groups that are ever made; some for nothing */
#define BIT(r) (1 << (r))
#define ALL (BIT(N) - 1)

/* shared. Sets of ranks and of groups are masks. */
byte dead, slot_dead, slot_left;
bool applied;
byte invited; /* to which group; 0: not yet */
byte parted;  /* who has come to the other place */
byte world, called; /* called: GROUP_CALL_MEETING */
byte made = 1;
byte present[L], settled[L], first_op[L];
byte w[L * M], w_sealed[L]; /* words of operations */
byte c[L * M], c_sealed[L]; /* control words */
byte gave[L * 2 * M];       /* beside them: two buffers of each member */
/* of the checker */
short got[(OPS + 1) * M]; /* what r returned from operation n */
byte agreement[M];
bool agreed_in[L];
byte deaths, stalls, calls, leaves, finished;

#define W(r) w[g * M + (r)]
#define C(r) c[g * M + (r)]
#define GAVE(r) gave[(g * 2 + (x & 1)) * M + (r)]

/* What is given: an agreement's value; a position; where the group is; that a region is ready. */
#define AGREES 1
#define POSITION (64 | n << 4 | open << 3 | passed << 2 | dropped << 1 | agreed)
#define MEMORY (128 | said << 5 | to)
#define READY 192
#define PHASE(v) ((v) >> 6)
#define COMPLETED(v) ((v) >> 4 & 3)
#define BEGUN(v) ((v) >> 3 & 1)
#define PASSED(v) ((v) >> 2 & 1)
#define DROPPED(v) ((v) >> 1 & 1)
#define SAYS(v) ((v) >> 5 & 1)
#define REACHED(v) (COMPLETED(v) + BEGUN(v))
#ifdef NO_PASSED
#define LAST(v) COMPLETED(v)
#else
#define LAST(v) (COMPLETED(v) + (PASSED(v) && !DROPPED(v)))
#endif
#define DONE 0
#define FAILED 1
#define JOINED 2
#define RESULT(set, g, how) ((set) << 5 | (g) << 2 | (how))

/* One of the options wherever a rank may die: before each write that others see, and in each wait. */
#define DIES atomic { deaths < DEATHS -> deaths++; dead = dead | BIT(me); goto out }

/* Step s, or control step x, is decided for rank r. */
#define DECIDED(r) (!(alive & BIT(r)) || W(r) >= s || (w_sealed[g] & BIT(r)))
#define GIVEN(r) (!(c_alive & BIT(r)) || C(r) >= x || (c_sealed[g] & BIT(r)))
#if N == 2
#define ALL_DECIDED (DECIDED(0) && DECIDED(1) && DECIDED(2))
#define ALL_GIVEN (GIVEN(0) && GIVEN(1) && GIVEN(2))
#elif N == 3
#define ALL_DECIDED (DECIDED(0) && DECIDED(1) && DECIDED(2) && DECIDED(3))
#define ALL_GIVEN (GIVEN(0) && GIVEN(1) && GIVEN(2) && GIVEN(3))
#endif

#ifdef STAY
#define LEAVES_FIRST false
#else
#define LEAVES_FIRST true
#endif
#if defined(STAY) || defined(STAY_SAID)
#define LEAVES_SECOND false
#elif defined(LEAVE_UNSAID)
#define LEAVES_SECOND true
#else
#define LEAVES_SECOND SAYS(GAVE(me))
#endif
#ifdef AGREE
#define AGREEMENT true
#else
#define AGREEMENT false
#endif
#ifdef PART
#define PART_NEXT (n == 1 && me < N && !(parted & BIT(me)))
#else
#define PART_NEXT false
#endif
#ifdef DROPPED_OUT
#define HAS_BEGUN (open && !dropped)
#else
#define HAS_BEGUN open
#endif
#define HEARS ((called & BIT(g)) && n >= deaf)
#define SEES_DECIDED (open && !dropped && ALL_DECIDED)
#ifdef STALE
#define HAS_MOVED SEES_DECIDED
#else
#define HAS_MOVED (SEES_DECIDED || given != (POSITION))
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

/* What all know after an exchange: who gave, and what follows from what they gave. */
inline collect() {
  givers = 0; voters = 0; last = 0; r = 0;
  behind = false; drops = false; said = false; meets = false;
  do
  :: r == M -> break
  :: else ->
     v = GAVE(r);
     if
     :: (c_alive & BIT(r)) && C(r) >= x ->
        givers = givers | BIT(r);
        if
        :: PHASE(v) == 0 -> voters = voters | BIT(r)
        :: else -> meets = true; assert(PHASE(v) == phase || phase == 0)
        fi;
        if :: PHASE(v) == 1 && LAST(v) > last -> last = LAST(v) :: else fi;
        if :: PHASE(v) == 1 && COMPLETED(v) >= until -> until = COMPLETED(v) + 1 :: else fi;
        if :: PHASE(v) == 2 && SAYS(v) -> said = true :: else fi;
        if :: PHASE(v) == 2 && (v & 31) != 0 && to == 0 -> to = v & 31 :: else fi
     :: else
     fi;
     r++
  od;
  r = 0;
  do
  :: r == M -> break
  :: else ->
     v = GAVE(r);
     if
     :: (givers & BIT(r)) && PHASE(v) == 1 ->
        if :: DROPPED(v) && COMPLETED(v) + 1 == last -> drops = true :: else fi;
        if :: COMPLETED(v) < last && REACHED(v) >= last -> behind = true :: else fi
     :: else
     fi;
     r++
  od;
  c_alive = givers;
  r = 0; v = 0
}

/* Publish the next control step. */
inline give(value) {
  if
  :: DIES
  :: atomic { c_sealed[g] & BIT(me) -> goto excluded }
  :: atomic {
       !(c_sealed[g] & BIT(me)) ->
       x++;
       v = value;
       phase = PHASE(v);
       GAVE(me) = v;
       C(me) = x;
       if :: phase == 1 -> given = v; until = 0 :: else fi;
       v = 0; had = givers; givers = 0
     }
  fi
}

/* Decide it, look again; or leave it open. */
inline take(may_leave) {
  if
  :: DIES
  :: atomic { c_sealed[g] & BIT(me) -> goto excluded }
  :: atomic { (may_leave) && SEES_DECIDED && !(ALL_GIVEN) -> left = phase; deaf = n + 1; goto decide }
  :: atomic { ALL_GIVEN && !(c_sealed[g] & BIT(me)) -> collect(); phase = 0; left = 0 }
  fi
}

inline check(result) {
  got[n * M + me] = result;
  r = 0;
  do
  :: r == M -> break
  :: else ->
     assert(got[n * M + r] == 0 || got[n * M + r] == got[n * M + me]);
     r++
  od;
  r = 0
}

inline return_from(how) {
  n++;
  check(RESULT(set, g, how));
  set = 0; turn = 0;
  if :: n >= deaf -> deaf = 0 :: else fi;
  open = false; passed = false; dropped = false
}

/* The set of those that have reached the step. */
inline contributors() {
  set = 0; r = 0;
  do
  :: r == M -> break
  :: else -> if :: (alive & BIT(r)) && W(r) >= s -> set = set | BIT(r) :: else fi; r++
  od;
  r = 0
}

/* Who is present there and did not come, but for one who joins. */
inline seal_missing() {
  r = present[to] & ~givers & (ALL | alive);
#ifdef NO_SEAL_MISSING
  r = 0;
#endif
  w_sealed[to] = w_sealed[to] | r;
  c_sealed[to] = c_sealed[to] | r;
  r = 0
}

inline seal_dead(l) {
  r = settled[l] & (slot_dead | slot_left);
#ifdef NO_SEAL_DEAD
  r = 0;
#endif
  w_sealed[l] = w_sealed[l] | r;
  c_sealed[l] = c_sealed[l] | r;
  r = 0
}

inline make() {
  to = made;
  made++;
  assert(to < L);
#ifdef GIVERS
  present[to] = givers;
#else
  present[to] = alive;
#endif
  first_op[to] = n;
  agreed_in[to] = agreed;
  if
  :: applied && !((slot_dead | alive) & BIT(N)) ->
     present[to] = present[to] | BIT(N);
#ifdef REPORT
     first_op[to] = n + 1 /* the one that tells of it */
#endif
  :: else
  fi
}

inline announce() {
  if :: world == g -> world = to :: else fi; /* else a sleeper is late */
  if :: invited == 0 && (present[to] & ~alive & BIT(N)) -> invited = to :: else fi
}

inline forget() {
  givers = 0; had = 0; voters = 0; last = 0; to = 0;
  behind = false; drops = false; said = false
}

proctype rank(byte me) {
  byte g, n, s, x;            /* group; operations completed; last step and control step there */
  byte alive, c_alive, known; /* members not known to be absent in each row; not reported */
  byte r, v, set, turn, givers, had, voters, last, to, phase;
  byte deaf, until, left;     /* to meetings, until that operation ends; what those that meet say of
                                 that; the phase of the exchange that was left open */
  byte given;                 /* the position */
  bool open, passed, dropped; /* of the operation */
  bool behind, drops, said, meets, agreed, news;

  if
  :: me < N -> goto enter
  :: else
  fi;
  if
  :: DIES
  :: atomic { applied = true; called = called | BIT(world) }
  fi;
invitation:
  if
  :: DIES
  :: atomic { invited == 0 && !(called & BIT(world)) -> called = called | BIT(world); goto invitation }
  :: atomic { invited != 0 -> g = invited; n = first_op[g]; agreed = agreed_in[g] }
  :: atomic { invited == 0 && finished >= N -> goto out } /* nobody is left to invite it */
  fi;
  if
  :: DIES
  :: atomic { true -> seal_dead(g) }
  fi;

enter:
  atomic { alive = present[g]; c_alive = alive; known = alive };
entry:
  if
#ifdef PART
  :: atomic { PART_NEXT -> parted = parted | BIT(me); goto part }
#endif
  :: atomic { n == OPS && !news -> goto leave }
#ifdef AGREE
  :: atomic { n == 1 && !agreed && !news && n < OPS && !PART_NEXT -> goto agree }
  :: atomic { n < OPS && HEARS && (n != 1 || agreed || news) && !PART_NEXT -> goto meeting }
  :: atomic { n < OPS && !HEARS && (n != 1 || agreed) && !news && !PART_NEXT -> goto publish }
#else
  :: atomic { n < OPS && !PART_NEXT && HEARS -> goto meeting }
  :: atomic { n < OPS && !PART_NEXT && !HEARS && !news -> goto publish }
#endif
#ifdef COUNT_LATE
  :: atomic { n < OPS && !HEARS && news -> news = false; n++; check(RESULT(alive, g, JOINED)); goto entry }
#endif
#if LEAVES > 0
  :: atomic { n < OPS && me < N && leaves < LEAVES -> leaves++; goto leave }
#endif
#if CALLS > 0
  :: atomic { n < OPS && (n != 1 || agreed || !AGREEMENT) && calls < CALLS -> calls++; called = called | BIT(g); goto meeting }
#endif
  fi;

#ifdef PART
part:
  if
  :: DIES
  :: atomic { ((parted | slot_dead | slot_left) & ALL) == ALL -> goto entry }
  fi;
#endif

publish:
  if
  :: DIES
  :: atomic { w_sealed[g] & BIT(me) -> goto excluded }
  :: atomic {
       !(w_sealed[g] & BIT(me)) ->
       s++;
       W(me) = s;
       open = true
     }
  fi;
decide:
  if
  :: DIES
  :: atomic { w_sealed[g] & BIT(me) -> goto excluded }
  :: atomic { HEARS -> goto meeting }
#if CALLS > 0
  :: atomic { calls < CALLS && !(called & BIT(g)) && n >= deaf -> calls++; called = called | BIT(g); goto meeting }
#endif
  :: atomic { ALL_DECIDED -> goto decided }
  fi;
decided:
  if
  :: DIES
  :: atomic {
       true ->
#ifdef STAGED
       contributors();
#else
       if :: !passed -> contributors() :: else fi;
#endif
       if
#ifdef STAGED
       :: set != alive ->
#else
       :: !passed && set != alive ->
#endif
          if :: w_sealed[g] & BIT(me) -> goto excluded :: else fi;
#ifdef WAIT
          dropped = true; passed = true; deaf = 0; set = 0; turn = 0;
          goto wait;
#endif
          known = known & set;
          alive = set;
#ifdef REPORT
          return_from(FAILED);
          goto entry;
#endif
          known = alive;
#ifdef STAGED
          if :: turn > 0 -> turn = 0; goto publish :: else fi;
#endif
       :: else
       fi;
       passed = true;
       turn++;
       if :: turn < STEPS -> goto publish :: else fi;
       if :: w_sealed[g] & BIT(me) -> goto excluded :: else fi;
#ifdef REPORT
       assert((known & ~set) == 0);
#endif
       return_from(DONE);
       goto entry
     }
  fi;

#ifdef WAIT
wait: /* for a replacement */
  if
  :: DIES
  :: atomic { w_sealed[g] & BIT(me) -> goto excluded }
  :: atomic { called & BIT(g) -> goto meeting }
  :: atomic { !(called & BIT(g)) && (invited != 0 || (dead & BIT(N))) -> goto leave } /* at last */
  fi;
#endif

#ifdef AGREE
agree:
  if
  :: left != 0 ->
     take(false);
     atomic { forget(); meets = false }
  :: left == 0
  fi;
  give(AGREES);
  take(false);
  atomic {
#ifndef AGREE_BLIND
    if :: meets -> deaf = until; forget(); meets = false; goto agree :: else fi; /* a mismatch */
#endif
    forget();
    meets = false;
    agreed = true;
    v = 128 | voters;
    voters = 0;
    agreement[me] = v;
    r = 0;
    do
    :: r == M -> break
    :: else ->
       assert(agreement[r] == 0 || agreement[r] == v);
       r++
    od;
    r = 0; v = 0;
    goto entry
  };
#endif

meeting:
  if
  :: atomic { left == 0 && SEES_DECIDED && LEAVES_FIRST -> deaf = n + 1; goto decide }
  :: atomic { left == 2 -> goto memory }
  :: atomic { left == 1 -> goto positions }
  :: atomic { left == 0 && !(SEES_DECIDED && LEAVES_FIRST) -> to = 0; givers = 0 }
  fi;
  give(POSITION);
positions:
  take(LEAVES_FIRST);
  atomic {
    if :: voters != 0 -> deaf = until; goto put_off :: else fi; /* a mismatch: some of them agree */
    if :: REACHED(given) < last -> goto excluded :: else fi;
    if
#ifdef FINISH_TWICE
    :: behind && !drops && COMPLETED(given) < last -> deaf = (n < last -> last : n + 1); goto put_off
    :: behind && !drops && COMPLETED(given) >= last -> forget(); goto meeting
#else
    :: behind && !drops && n < last -> deaf = last; goto put_off /* FINISH */
    :: behind && !drops && n >= last -> forget(); goto meeting   /* AGAIN */
#endif
    :: !behind || drops                                          /* REPLACE */
    fi;
    last = 0; behind = false; drops = false; meets = false
  };
  if
  :: DIES
#ifndef NO_LAST_LOOK
  :: atomic { w_sealed[g] & BIT(me) -> goto excluded }
#endif
  :: atomic { /* the last look: is the next operation decided by now, with this rank or without? */
#ifndef NO_LAST_LOOK
       !(w_sealed[g] & BIT(me)) ->
#else
       true ->
#endif
#ifndef NO_DECIDED
       said = HAS_MOVED;
#endif
#ifndef STAGED
       assert(!passed || dropped || said); /* what is dropped has its input */
#endif
       do :: givers & BIT(r) -> break :: else -> r++ od;
       if
       :: r == me && !said -> make()
       :: else
       fi;
       r = 0
     }
  fi;
  if
  :: DIES
  :: atomic {
       true ->
#ifndef NO_SETTLE
       if
       :: to != 0 -> settled[to] = present[to] & ~givers /* who cannot do it themselves */
       :: else
       fi
#endif
     }
  fi;
  give(MEMORY);
memory:
  take(LEAVES_SECOND);
  atomic {
    meets = false;
    if
    :: voters != 0 -> deaf = until; goto put_off
#ifndef NO_RESTART
    :: voters == 0 && givers != had -> forget(); goto meeting
    :: voters == 0 && givers == had && said ->
       if
       :: HAS_BEGUN -> deaf = n + 1; goto put_off
       :: !HAS_BEGUN && HAS_MOVED -> forget(); goto meeting
       :: else -> goto excluded
       fi
    :: voters == 0 && givers == had && !said
#else
    :: voters == 0 && said ->
       if
       :: HAS_BEGUN -> deaf = n + 1; goto put_off
       :: !HAS_BEGUN && HAS_MOVED -> forget(); goto meeting
       :: else -> goto excluded
       fi
    :: voters == 0 && !said
#endif
    fi;
    assert(to != 0 && agreed_in[to] == agreed)
  };
  if
  :: DIES
  :: atomic { true -> settled[to] = settled[to] | BIT(me) }
  fi;
  give(READY);
  take(false);
  atomic {
    meets = false;
    if
    :: voters != 0 -> deaf = until; goto put_off
#ifndef NO_RESTART
    :: voters == 0 && givers != had -> forget(); goto meeting
    :: voters == 0 && givers == had
#else
    :: voters == 0
#endif
    fi
  };
#ifdef INVITE_FIRST
  if
  :: DIES
  :: atomic { true -> announce() }
  fi;
#endif
  if
  :: DIES
  :: atomic { true -> seal_missing(); seal_dead(to) }
  fi;
  if
  :: DIES
  :: atomic {
       true ->
#ifndef INVITE_FIRST
       announce();
#endif
       open = false; passed = false; dropped = false; deaf = 0; until = 0; given = 0; set = 0; turn = 0;
       v = present[to] & ~alive & BIT(N); /* who has joined */
       alive = present[to]; c_alive = alive;
       known = known | v;
       g = to; s = 0; x = 0;
       forget();
#ifdef REPORT
       if
       :: v != 0 ->
#ifdef COUNT_LATE
          news = true
#else
          n++;
          check(RESULT(alive, g, JOINED))
#endif
       :: else
       fi;
#endif
       v = 0;
       goto entry
     }
  fi;

put_off: /* to the end of an operation */
  atomic {
    forget();
    meets = false;
#ifdef WAIT
    if :: dropped -> goto wait :: else fi;
#endif
    if :: open -> goto decide :: else -> goto entry fi
  };

leave:
  if
  :: DIES
  :: atomic { true -> w_sealed[g] = w_sealed[g] | BIT(me) }
  fi;
  if
  :: DIES
  :: atomic { true -> c_sealed[g] = c_sealed[g] | BIT(me) }
  fi;
  if
  :: DIES
  :: atomic { true -> slot_left = slot_left | BIT(me); goto out }
  fi;

excluded:
  assert(slot_dead & BIT(me));
out:
  atomic {
    finished++;
    r = 0; v = 0; set = 0; turn = 0; phase = 0;
    forget();
    open = false; passed = false; dropped = false; deaf = 0; until = 0; left = 0; given = 0;
    meets = false; agreed = false; news = false;
    alive = 0; c_alive = 0; known = 0; g = 0; n = 0; s = 0; x = 0
  }
}

init {
  byte r;
  atomic {
    present[0] = ALL;
    settled[0] = ALL;
    do :: r == M -> break :: else -> run rank(r); r++ od;
    run monitor();
    r = 0
  }
}
