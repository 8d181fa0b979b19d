//! Breadth first through every reachable state, so that the first fault found has the shortest trace.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use ringfence::decide::{Phase, Why};

use crate::frozen::Rests;
use crate::next::{Next, next};
use crate::state::{State, name};
use crate::world::World;

/// A world larger than this is refused: it would not fit into the memory of a small machine.
const MOST: usize = 30_000_000;

/// What an exploration has found.
pub struct Found {
    pub states: usize,
    pub seconds: f32,
    /// The property that does not hold, and how to get there.
    pub wrong: Option<(&'static str, Vec<String>)>,
    pub phases: BTreeSet<&'static str>,
    pub halted: BTreeSet<Why>,
}

/// Explores one world to its end, or to its first fault.
pub fn explore(world: &World) -> Found {
    let begin = Instant::now();
    let mut found = Found { states: 0, seconds: 0., wrong: None, phases: BTreeSet::new(), halted: BTreeSet::new() };
    let mut map = Map::default();
    let mut queue: VecDeque<(u32, State)> = VecDeque::new();
    let mut rests = Rests::default();
    let mut events = Next::new();
    for (n, start) in State::starts(world).into_iter().enumerate() {
        queue.extend(map.add(&start, None, n).map(|i| (i, start)));
    }
    while let Some((i, state)) = queue.pop_front() {
        found.phases.insert(name(state.phase));
        if let Phase::Halted { why, .. } = state.phase {
            found.halted.insert(why);
        }
        if let Some(wrong) = state.wrong(world) {
            found.wrong = Some((wrong, map.trace(i, world)));
            break;
        }
        if let Err((wrong, rest)) = rests.check(&state, world) {
            let mut trace = map.trace(i, world);
            trace.extend(rest);
            found.wrong = Some((wrong, trace));
            break;
        }
        next(&state, world, &mut events);
        for (n, (_, x)) in events.iter().enumerate() {
            if let Some(i) = map.add(x, Some(i), n) {
                queue.push_back((i, *x));
            }
        }
        if map.keys.len() > MOST {
            found.wrong = Some(("too many states", vec![]));
            break;
        }
    }
    found.states = map.keys.len();
    found.seconds = begin.elapsed().as_secs_f32();
    found
}

/// Explores on every core; answers in the order asked.
pub fn explore_all(worlds: Vec<World>) -> Vec<Found> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |n| n.get()) {
            scope.spawn(|| {
                loop {
                    // The largest are the last in the table, and are begun first.
                    let i = worlds.len().wrapping_sub(1 + next.fetch_add(1, Ordering::Relaxed));
                    let Some(world) = worlds.get(i) else { break };
                    let f = explore(world);
                    found.lock().expect("no explorer panics with the lock held").insert(i, f);
                }
            });
        }
    });
    found.into_inner().expect("all explorers have ended").into_values().collect()
}

/// The states seen, and how each was reached first.
#[derive(Default)]
struct Map {
    /// From which state (by its number), and by which of its events.
    from: HashMap<Key, (Option<u32>, u16), Fast>,
    keys: Vec<Key>,
}

impl Map {
    /// Adds a state; answers its number if it is new.
    fn add(&mut self, state: &State, from: Option<u32>, event: usize) -> Option<u32> {
        match self.from.entry(key(state)) {
            Entry::Occupied(_) => None,
            Entry::Vacant(free) => {
                let i = self.keys.len() as u32;
                self.keys.push(*free.key());
                free.insert((from, event as u16));
                Some(i)
            }
        }
    }

    fn trace(&self, mut i: u32, world: &World) -> Vec<String> {
        let mut way = vec![];
        let start = loop {
            match self.from[&self.keys[i as usize]] {
                (Some(from), event) => {
                    way.push(event);
                    i = from;
                }
                (None, start) => break start,
            }
        };
        let mut state = State::starts(world)[start as usize];
        let mut text = vec![];
        for event in way.into_iter().rev() {
            let mut events = Next::new();
            next(&state, world, &mut events);
            let (label, x) = events[event as usize];
            text.push(match label {
                "decide" => {
                    let r = usize::from(x.hands[0] == state.hands[0]);
                    format!("r{r}: {:?}", x.hands[r].act)
                }
                other => other.to_string(),
            });
            state = x;
        }
        text
    }
}

/// A state is remembered by 128 bits of hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(u64, u64);

impl Hash for Key {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.0);
    }
}

/// For maps whose keys are hashes already.
pub type Fast = BuildHasherDefault<AsItIs>;

/// Takes a key for its own hash.
#[derive(Default)]
pub struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a key is one number")
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Hashes a state.
pub fn key(state: &State) -> Key {
    let mut hasher = Mix::default();
    state.hash(&mut hasher);
    hasher.mix();
    Key(hasher.one, hasher.two)
}

/// Two independent multiplicative hashes over words of eight fields: fast without optimisation, too, and no adversary
/// here.
#[derive(Default)]
struct Mix {
    one: u64,
    two: u64,
    word: u64,
    fields: u8,
}

impl Mix {
    fn field(&mut self, n: u8) {
        self.word = self.word << 8 | u64::from(n);
        self.fields += 1;
        if self.fields == 8 {
            self.mix();
        }
    }

    fn mix(&mut self) {
        self.one = (self.one.rotate_left(5) ^ self.word).wrapping_mul(0x517c_c1b7_2722_0a95);
        self.two = (self.two ^ self.word.wrapping_add(0x9e37_79b9)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        self.two ^= self.two >> 29;
        (self.word, self.fields) = (0, 0);
    }
}

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.field(*b));
    }

    fn write_u8(&mut self, n: u8) {
        self.field(n);
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn write_isize(&mut self, n: isize) {
        self.write_u64(n as u64);
    }

    /// Nothing in a state is larger: neither a variant's number, nor a time, nor a count.
    fn write_u64(&mut self, n: u64) {
        self.field(n.try_into().expect("below 256"));
    }

    fn finish(&self) -> u64 {
        self.one
    }
}
