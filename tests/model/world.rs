//! The dimensions of a world, and the worlds that are explored.

use ringfence::decide::Case;

use crate::levels::{Kind, Socket};
use crate::state::{Act, Bmc};

/// What may happen in a world; every interleaving of it is explored.
#[derive(Clone, Copy)]
pub struct World {
    /// `action: reboot`.
    pub restore: bool,
    /// Offs, and ons, in all.
    pub attempts: u8,
    /// Replicas of the controller, each of which may believe to lead, arbitrarily late.
    pub replicas: usize,
    /// Looking and deciding are two moments.
    pub split: bool,
    /// An accepted command may land later.
    pub late: bool,
    /// The BMC may answer 2xx and do nothing.
    pub lies: bool,
    /// Commands and answers get lost.
    pub lost: bool,
    /// The BMC may fall silent, and come back.
    pub down: bool,
    /// The BMC may refuse our credentials, until the Secret is corrected.
    pub locked: bool,
    /// It may say Off of a running machine from the start, until it carries out a command.
    pub hearsay_first: bool,
    /// And then answer 2xx and do nothing, too.
    pub deaf: bool,
    /// It may begin to do so at any time.
    pub hearsay_any: bool,
    /// The BMC says Off a tick before power is gone.
    pub settle: bool,
    /// The CR may be deleted.
    pub deleted: bool,
    /// NHC may give it up.
    pub timed_out: bool,
    /// The Node may be replaced.
    pub node_gone: bool,
    /// By one that carries our marks.
    pub backup: bool,
    /// Someone else presses the power button.
    pub owner: bool,
    /// Remediations of this node, one after another.
    pub crs: u8,
    /// The order may be corrected.
    pub orders: bool,
    /// Both orders mean this node's machine.
    pub alias: bool,
    /// The order is wrong from the start.
    pub wrong_from_start: bool,
    /// The wrong one is nobody's: success to every command, and always Off.
    pub no_plug: bool,
    /// The Secret may be deleted, and come back.
    pub unresolved: bool,
    /// The quorum changes (where NHC escalates: another remediator comes and goes).
    pub quorum: bool,
    /// How many may begin is limited: each is counted first.
    pub breaker: bool,
    /// Preflight has read the machine ON.
    pub preflight: bool,
    /// The BMC says the machine's UUID.
    pub uuid: bool,
    /// The node is silent to the API server, and writes.
    pub hung: bool,
    /// A node that runs may begin to talk.
    pub wakes: bool,
    /// A second remediation of the same node, that does as it likes once it holds the node.
    pub other: bool,
    /// NHC escalates: another remediation waits for the node, or no longer.
    pub escalates: bool,
    /// That one is this controller's, too, and goes on where it takes over.
    pub successor: bool,
    /// The properties hold it to what the first one switched off.
    pub inherits: bool,
    /// The barrier is the out-of-service taint: pod GC and forced detach follow it.
    pub gc: bool,
    /// The pod has a volume.
    pub volumes: bool,
    /// The ways to cut the node off, in this order.
    pub levels: &'static [Kind],
    /// How the BMC is at first.
    pub bmc: Bmc,
    /// How the sockets may be.
    pub sockets: &'static [[Socket; 2]],
    /// The second socket feeds another machine.
    pub miswired: bool,
    /// The machine stays off when its mains return.
    pub stays_off: bool,
    /// The sockets may be taken out of the spec.
    pub fewer: bool,
    /// A person may switch the machine off by hand.
    pub hands: bool,
    /// The person may say that it is off before it is.
    pub hasty: bool,
    /// Or that it is not to be taken for off.
    pub denies: bool,
    /// Someone may switch it on again; then the node talks, and may fall silent while it runs.
    pub returns: bool,
    /// What a mutant breaks.
    pub slip: Slip,
}

/// How a mutant breaks a rule.
#[derive(Clone, Copy)]
pub enum Slip {
    /// It does not.
    None,
    /// `decide` is told something else: the line that reads it might as well be missing.
    Case(fn(&mut Case)),
    /// Something else is done than was decided.
    Act(fn(&Case, Act) -> Act),
    /// `observe`, `act` or a driver does not keep its side.
    World(Flaw),
}

/// What is done wrongly around `decide`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// `reboot` is sent for off.
    OffIsReboot,
    /// A refusal "already off" counts as an answer of success.
    RefusalCounts,
    /// The driver commands a machine whose UUID is another's.
    WrongMachineSent,
    /// It looks in every phase.
    LooksAgain,
    /// A reading may be arbitrarily old.
    OldReading,
    /// A power command may leave arbitrarily late.
    LatePowerForEver,
    /// The remediation is read before the world is.
    CrReadFirst,
    /// It is read last, and not compared.
    CrReadLast,
    /// Status is written whatever its resourceVersion.
    NoCas,
    /// The Node is.
    NoGuard,
    /// The barrier is.
    BarUnguarded,
    /// The seal leaves the pods out.
    SealNodeOnly,
    /// Pods are deleted by name alone.
    DeleteByName,
    /// By UID, without resourceVersion.
    DeleteByUidOnly,
    /// Pods that arrive later are waited for.
    SetNotFixed,
    /// The claim comes with NoExecute.
    NoExecuteFirst,
    /// Neither a command nor a silent BMC breaks a series of Offs. (Each breaks it in time, so that one will do.)
    SeriesUnbroken,
    /// One socket that is off is enough.
    OneFeed,
    /// What was said to an earlier request counts for this one.
    OldWord,
}

impl World {
    /// Tells whether this world has that flaw.
    pub fn flawed(&self, flaw: Flaw) -> bool {
        matches!(self.slip, Slip::World(f) if f == flaw)
    }

    /// Tells whether it matters what a replica remembers: where a node never speaks and power never fades, it would only
    /// wait for nothing.
    pub fn remembers(&self) -> bool {
        self.speaks() || self.settle
    }

    /// Tells whether the node may ever show life.
    pub fn speaks(&self) -> bool {
        !self.hung || self.wakes
    }
}

/// A hung node, a BMC that lies, loses and falls silent, a CR that may be deleted.
pub const BASE: World = World {
    restore: true,
    attempts: 2,
    replicas: 1,
    split: false,
    late: false,
    lies: true,
    lost: true,
    down: true,
    locked: false,
    hearsay_first: false,
    deaf: false,
    hearsay_any: false,
    settle: false,
    deleted: true,
    timed_out: false,
    node_gone: false,
    backup: false,
    owner: false,
    crs: 1,
    orders: false,
    alias: false,
    wrong_from_start: false,
    no_plug: false,
    unresolved: false,
    quorum: false,
    preflight: false,
    breaker: false,
    uuid: true,
    hung: true,
    wakes: false,
    other: false,
    escalates: false,
    successor: false,
    inherits: false,
    gc: true,
    volumes: false,
    levels: &[Kind::Bmc],
    bmc: Bmc::Up,
    sockets: &[[Socket::Works; 2]],
    miswired: false,
    stays_off: false,
    fewer: false,
    hands: false,
    hasty: false,
    denies: false,
    returns: false,
    slip: Slip::None,
};
/// The same with a BMC that does as it is told.
pub const CALM: World = World { lies: false, lost: false, down: false, ..BASE };
const ALL: World = World { late: true, hearsay_first: true, timed_out: true, node_gone: true, crs: 2, ..BASE };
const TWO: World = World { replicas: 2, ..CALM };
const WRONG: World = World { wrong_from_start: true, ..BASE };
const SAME: World = World { orders: true, alias: true, late: true, ..WRONG };
const VOLUME: World = World { volumes: true, gc: false, ..BASE };
const HEIR: World = World { escalates: true, ..BASE };

/// The worlds of every run.
#[rustfmt::skip]
pub const WORLDS: &[(&str, World)] = &[
    ("cycle: reboot", World { hearsay_first: true, late: true, crs: 2, ..BASE }),
    ("cycle: off", World { hearsay_first: true, late: true, crs: 2, restore: false, ..BASE }),
    ("cycle: the node wakes up", World { wakes: true, late: true, ..BASE }),
    ("hearsay at any time", World { hearsay_any: true, lies: false, ..BASE }),
    ("hearsay, 2xx and nothing", World { hearsay_first: true, deaf: true, hung: false, ..BASE }),
    ("power fades", World { settle: true, wakes: true, ..BASE }),
    ("power fades, hearsay", World { settle: true, hearsay_any: true, lies: false, ..BASE }),
    ("leave: timed out, node gone", World { timed_out: true, node_gone: true, late: true, ..BASE }),
    ("leave: Node restored from a backup", World { node_gone: true, backup: true, ..CALM }),
    ("leave: timed out, the node comes back", World { timed_out: true, owner: true, wakes: true, attempts: 1, deleted: false, lies: false, lost: false, ..BASE }),
    ("honest BMC, late", World { late: true, crs: 2, ..CALM }),
    ("owner", World { owner: true, late: true, ..BASE }),
    ("owner, off", World { owner: true, late: true, restore: false, ..BASE }),
    ("refused", World { locked: true, wakes: true, lies: false, ..BASE }),
    ("unresolved", World { unresolved: true, late: true, ..BASE }),
    ("witness: right device", World { uuid: false, hung: false, late: true, ..BASE }),
    ("witness: right device, hung", World { uuid: false, late: true, ..BASE }),
    ("witness: wrong device", World { uuid: false, hung: false, ..WRONG }),
    ("witness: no such plug", World { uuid: false, no_plug: true, ..WRONG }),
    ("identity: wrong device", WRONG),
    ("order corrected, identity", World { orders: true, ..WRONG }),
    ("order corrected, witness", World { orders: true, uuid: false, hung: false, ..WRONG }),
    ("order changed, same machine", SAME),
    ("order changed, same, off", World { restore: false, ..SAME }),
    ("quorum", World { quorum: true, locked: true, ..BASE }),
    ("breaker", World { breaker: true, quorum: true, late: true, ..CALM }),
    ("breaker, two replicas, two CRs", World { breaker: true, crs: 2, gc: false, ..TWO }),
    ("preflight", World { preflight: true, late: true, crs: 2, ..BASE }),
    ("preflight, hearsay at any time", World { preflight: true, hearsay_any: true, lies: false, ..BASE }),
    ("preflight, power fades", World { preflight: true, settle: true, wakes: true, ..BASE }),
    ("preflight, hearsay, 2xx and nothing", World { preflight: true, hearsay_first: true, deaf: true, hung: false, ..BASE }),
    ("preflight, owner", World { preflight: true, owner: true, late: true, ..BASE }),
    ("preflight, witness: right device", World { preflight: true, uuid: false, hung: false, late: true, ..BASE }),
    ("preflight, witness: wrong device", World { preflight: true, uuid: false, hung: false, ..WRONG }),
    ("preflight, order corrected", World { preflight: true, orders: true, ..WRONG }),
    ("preflight, two replicas", World { preflight: true, crs: 2, late: true, ..TWO }),
    ("volume", World { late: true, wakes: true, ..VOLUME }),
    ("volume, owner", World { owner: true, lies: false, ..VOLUME }),
    ("volume, out-of-service taint", World { owner: true, gc: true, lies: false, ..VOLUME }),
    ("another remediation", World { other: true, late: true, ..BASE }),
    ("hand-over", World { other: true, late: true, timed_out: true, ..HEIR }),
    ("hand-over, successor", World { successor: true, late: true, ..HEIR }),
    ("hand-over, successor, timed out", World { successor: true, timed_out: true, late: true, ..HEIR }),
    ("hand-over, successor, held", World { successor: true, quorum: true, owner: true, deleted: false, lies: false, lost: false, ..HEIR }),
    ("all, one attempt", World { quorum: true, attempts: 1, ..ALL }),
    ("two replicas", World { replicas: 2, lies: false, down: false, ..BASE }),
    ("two replicas, late", World { late: true, ..TWO }),
    ("two replicas, split", World { split: true, ..TWO }),
    ("two replicas, split, off", World { split: true, restore: false, ..TWO }),
    ("two replicas, two CRs", World { crs: 2, gc: false, ..TWO }),
    ("two replicas, two CRs, split", World { crs: 2, split: true, ..TWO }),
    ("two replicas, two CRs, late", World { crs: 2, late: true, ..TWO }),
    ("two replicas, orders", World { wrong_from_start: true, orders: true, alias: true, ..TWO }),
    ("two replicas, leave", World { timed_out: true, node_gone: true, ..TWO }),
    ("two replicas, orders, split", World { split: true, wrong_from_start: true, orders: true, ..TWO }),
    ("two replicas, witness: wrong device", World { wrong_from_start: true, uuid: false, hung: false, ..TWO }),
    ("two replicas, another", World { other: true, ..TWO }),
    ("two replicas, owner, split", World { owner: true, split: true, attempts: 1, ..TWO }),
    ("two replicas, owner", World { owner: true, gc: false, attempts: 1, ..TWO }),
    ("two replicas, volume", World { owner: true, volumes: true, gc: false, attempts: 1, ..TWO }),
    ("two replicas, hand-over", World { other: true, escalates: true, lost: true, deleted: false, ..TWO }),
];

/// Too large for every run.
#[rustfmt::skip]
pub const LARGE: &[(&str, World)] = &[
    ("all, one replica", World { quorum: true, ..ALL }),
    ("all, one replica, owner", World { owner: true, ..ALL }),
    ("all, the node comes back", World { timed_out: true, owner: true, wakes: true, locked: true, late: true, ..BASE }),
    ("two replicas, witness: wrong device, bad BMC", World { wrong_from_start: true, replicas: 2, uuid: false, hung: false, ..BASE }),
    ("two replicas, two CRs, BMC down", World { crs: 2, down: true, gc: false, attempts: 1, ..TWO }),
    ("two replicas, successor", World { successor: true, escalates: true, timed_out: true, gc: false, attempts: 1, ..TWO }),
    ("two replicas, two CRs, BMC down, two attempts", World { crs: 2, down: true, ..TWO }),
    ("two replicas, bad BMC, late", World { replicas: 2, late: true, ..BASE }),
    ("two replicas, split, late, two CRs", World { late: true, split: true, crs: 2, down: true, ..TWO }),
    ("two replicas, successor, late", World { successor: true, escalates: true, down: true, late: true, ..TWO }),
];

/// What is not defended, and known not to be.
#[rustfmt::skip]
pub const LIMITS: &[(&str, World)] = &[
    ("an accepted off lands late, and meanwhile the BMC begins to say Off", World { hearsay_any: true, late: true, lies: false, ..BASE }),
    ("2xx and nothing, and meanwhile the BMC begins to say Off", World { hearsay_any: true, ..BASE }),
    ("hearsay Off, refuses with 'already off', that counts", World { slip: Slip::World(Flaw::RefusalCounts), hearsay_first: true, ..BASE }),
    ("witness only, wrong plug, and the node hung", World { uuid: false, ..WRONG }),
    ("a power command lands at any time", World { slip: Slip::World(Flaw::LatePowerForEver), late: true, crs: 2, ..TWO }),
    ("the next remediation is deleted as soon as it takes over", World { successor: true, inherits: true, ..HEIR }),
    ("another remediation takes the replaced Node", World { other: true, node_gone: true, ..BASE }),
];
