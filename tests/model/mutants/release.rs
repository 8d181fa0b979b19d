//! Release, restore, and what guards both: seal, resourceVersions, the order of reading.

use ringfence::decide::{Phase, Pods, Reading, Volumes};

use super::property::{BEHIND, CIRCLES, FOREIGN, LIVE, OFF, VOLUME, WRITERS};
use super::{Mutant, act, case, flaw, off_of, restoring};
use crate::clock::NOW;
use crate::state::{Act, Deed};
use crate::world::Flaw;

#[rustfmt::skip]
pub const MUTANTS: &[Mutant] = &[
    // Release
    case("R1", "pods are deleted before the barrier is up", |c| {
        c.barrier |= matches!(c.phase, Phase::Releasing { .. }) && c.reading != Reading::Running
    }, ("owner", WRITERS)),
    flaw("R2", "pods that arrive later are waited for", Flaw::SetNotFixed, ("cycle: reboot", CIRCLES)),
    flaw("R3", "pods are deleted by name", Flaw::DeleteByName, ("cycle: reboot", FOREIGN)),
    flaw("R3", "by UID, whatever their resourceVersion", Flaw::DeleteByUidOnly, ("two replicas", WRITERS)),
    case("R4", "volumes are detached before barrier and pods", |c| {
        let first = matches!(c.phase, Phase::Releasing { .. }) && c.volumes == Volumes::InUse;
        if first && c.reading != Reading::Running { (c.barrier, c.pods) = (true, Pods::Terminating) }
    }, ("volume, owner", VOLUME)),
    act("R4", "volumes are detached before a proof", |c, act| match (act, c.phase, c.reading) {
        (Act::Idle, Phase::Proving { .. }, Reading::Unknown) if c.volumes == Volumes::InUse => Act::Do(Deed::Detach),
        (_, _, _) => act,
    }, ("volume", VOLUME)),
    case("R5", "release may last for ever", |c| {
        c.policy.release_timeout = 1000
    }, ("cycle: reboot", "waits for ever in Releasing")),
    case("R6", "power seen on costs no attempt", |c| {
        if let Phase::Releasing { attempt, .. } = &mut c.phase { *attempt = 0 }
    }, ("cycle: reboot", CIRCLES)),
    case("R6", "Releasing has all the time in the world", |c| {
        if let Phase::Releasing { since, .. } = &mut c.phase { *since = NOW }
    }, ("cycle: reboot", "waits for ever in Releasing")),

    // Restore
    case("S1", "power comes on before the barrier is down", |c| c.barrier &= !restoring(c), ("cycle: reboot", LIVE)),
    case("S1", "after `action: off` the barrier stays", |c| {
        c.barrier &= !restoring(c) || c.policy.restore
    }, ("cycle: off", "NoExecute in Done")),
    case("S1", "the barrier comes down in Restoring only", |c| {
        c.barrier &= restoring(c) || c.reading != Reading::Running
    }, ("owner", "NoExecute seen on a live node, and not retracted")),
    case("S1", "a sign of life counts only against an off", |c| {
        if off_of(c.phase).is_none() { c.life = 0 }
    }, ("leave: timed out, the node comes back", "rests with NoExecute on a node that lives")),
    case("S2", "no seal", |c| c.sealed |= restoring(c), ("two replicas", LIVE)),
    flaw("S2", "the seal leaves the pods out", Flaw::SealNodeOnly, ("two replicas", WRITERS)),
    case("S2", "sealed after the barrier is down", |c| c.sealed |= c.barrier, ("two replicas, owner", WRITERS)),
    case("S2", "no seal when it runs", |c| {
        c.sealed |= restoring(c) && c.reading == Reading::Running
    }, ("two replicas, owner", "NoExecute in Done")),
    case("S2", "no seal at the end", |c| c.sealed |= !restoring(c), ("two replicas", BEHIND)),
    flaw("S2", "the barrier ignores the Node's resourceVersion", Flaw::BarUnguarded, ("two replicas", LIVE)),
    flaw("S4", "every Node write ignores it", Flaw::NoGuard, ("two replicas", BEHIND)),
    flaw("S2", "a status write ignores the remediation's", Flaw::NoCas, ("two replicas, late", LIVE)),
    flaw("S2", "a power command leaves at any time", Flaw::LatePowerForEver, ("two replicas", OFF)),
    flaw("flow", "the remediation is read first", Flaw::CrReadFirst, ("two replicas, split", BEHIND)),
    flaw("flow", "its resourceVersion may have moved", Flaw::CrReadLast, ("two replicas, owner, split", WRITERS)),
    case("S3", "On is tried for ever", |c| {
        if let Phase::Restoring { attempt, .. } = &mut c.phase { *attempt = 1 }
    }, ("cycle: reboot", CIRCLES)),
];
