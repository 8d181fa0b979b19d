//! Worlds with more than one way to cut the node off, and with a person to ask.

use crate::levels::Kind::{Bmc as B, Person as P, Sockets as S};
use crate::levels::Socket::{Late, Refuses, Silent, Stuck, Works};
use crate::state::Bmc;
use crate::world::{CALM, World};

/// A BMC that does as it is told or falls silent, and two sockets behind it.
const TWO: World = World { levels: &[B, S], down: true, attempts: 1, gc: false, ..CALM };
/// One that has fallen silent before.
const DEAD: World = World { bmc: Bmc::Down, ..TWO };
/// The node talks, and may be heard.
const HEARD: World = World { hung: false, wakes: true, ..DEAD };
/// Nothing but a person.
const ASK: World =
    World { levels: &[P], hung: false, wakes: true, hands: true, attempts: 1, down: false, gc: false, ..CALM };

/// The worlds of every run.
#[rustfmt::skip]
pub const LEVELS: &[(&str, World)] = &[
    ("levels: sockets as they come", World { sockets: &[[Works, Works], [Works, Stuck], [Works, Late], [Late, Works], [Works, Refuses], [Silent, Works]], ..DEAD }),
    ("levels: the node is heard", World { sockets: &[[Works, Works], [Works, Late]], ..HEARD }),
    ("levels: a socket feeds another", World { miswired: true, down: false, ..HEARD }),
    ("levels: a socket feeds another, the BMC sees it", World { miswired: true, lies: true, down: false, ..TWO }),
    ("levels: off", World { restore: false, ..DEAD }),
    ("levels: it stays off when mains return", World { stays_off: true, sockets: &[[Works, Works], [Works, Late]], ..DEAD }),
    ("levels: two attempts, answers lost", World { attempts: 2, lost: true, sockets: &[[Works, Works], [Works, Late]], ..DEAD }),
    ("levels: 2xx and nothing", World { lies: true, attempts: 2, ..TWO }),
    ("levels: late", World { late: true, stays_off: true, sockets: &[[Works, Late]], ..TWO }),
    ("levels: hearsay", World { hearsay_first: true, deaf: true, lies: true, hung: false, wakes: true, down: false, ..TWO }),
    ("levels: the BMC refuses us", World { locked: true, bmc: Bmc::Locked, down: false, ..TWO }),
    ("levels: the BMC is another's", World { wrong_from_start: true, uuid: true, ..TWO }),
    ("levels: the BMC refuses us later", World { locked: true, lies: true, stays_off: true, down: false, ..TWO }),
    ("levels: timed out, node gone", World { timed_out: true, node_gone: true, ..DEAD }),
    ("levels: quorum", World { quorum: true, down: false, lies: true, ..TWO }),
    ("levels: the sockets are taken out", World { fewer: true, down: false, lies: true, ..TWO }),
    ("levels: someone presses the button", World { owner: true, wakes: true, restore: false, down: false, ..DEAD }),
    ("levels: volume", World { volumes: true, owner: true, ..DEAD }),
    ("levels: two replicas", World { replicas: 2, sockets: &[[Works, Late]], down: false, ..DEAD }),
    ("levels: two replicas, split", World { replicas: 2, split: true, down: false, ..DEAD }),
    ("word: alone", ASK),
    ("word: hasty, and denied", World { hasty: true, denies: true, hands: false, ..ASK }),
    ("word: the node comes back, and falls silent", World { returns: true, ..ASK }),
    ("word: behind a BMC", World { levels: &[B, P], down: true, wakes: false, hands: false, hasty: true, ..ASK }),
    ("word: behind a BMC, hung, 2xx and nothing", World { levels: &[B, P], lies: true, down: true, hung: true, wakes: false, denies: true, ..ASK }),
    ("word: behind sockets", World { levels: &[B, S, P], bmc: Bmc::Down, hands: false, hung: true, wakes: false, sockets: &[[Works, Stuck], [Works, Refuses]], ..ASK }),
    ("word: quorum", World { levels: &[B, P], quorum: true, bmc: Bmc::Down, ..ASK }),
    ("word: two replicas", World { replicas: 2, hasty: true, hands: false, ..ASK }),
    ("word: two replicas, split", World { replicas: 2, split: true, hands: false, hasty: true, ..ASK }),
    ("word: timed out, node gone", World { timed_out: true, node_gone: true, ..ASK }),
];

/// What is not defended.
#[rustfmt::skip]
pub const LIMITS: &[(&str, World)] = &[
    ("a socket feeds another machine, and the node hung", World { miswired: true, hung: true, wakes: false, ..HEARD }),
    ("a person says too early that a hung node is off", World { hasty: true, hung: true, wakes: false, ..ASK }),
];
