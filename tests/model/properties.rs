//! What must never be.

use ringfence::decide::{Case, Identity, Leave, Phase, Power, Reading, Rest};

use crate::levels::Kind;
use crate::state::{Act, Deed, State, View, Volume};
use crate::world::World;

impl State {
    /// What must hold of one decision, whatever led to it.
    pub fn judge(&self, act: Act, case: &Case, view: View, world: &World) -> Option<&'static str> {
        if view != self.view(world) || view.cr.is_some() {
            return None; // it has seen an older world; the states that follow tell whether that matters
        }
        let stopped = match self.leave {
            Leave::No | Leave::Deleted => false,
            Leave::TimedOut { .. } | Leave::NodeGone { .. } => true,
        };
        let stays = matches!(self.leave, Leave::No | Leave::TimedOut { deleted: false });
        let releases = matches!(act, Act::Do(Deed::Bar | Deed::Delete | Deed::Detach));
        let power = match act {
            Act::Send(..) if self.kind(world) == Kind::Person => None, // asking is no command
            Act::Send(power, ..) => Some(power),
            Act::Idle | Act::Looked(_) | Act::Enter(_) | Act::Do(_) | Act::Finish => None,
        };
        match act {
            Act::Send(..) if stopped => Some("power command after TimedOut/NodeGone"),
            _ if releases && stopped => Some("release after TimedOut/NodeGone"),
            _ if power == Some(Power::On) && !matches!(case.phase, Phase::Restoring { .. }) => {
                Some("on outside of a restoration")
            }
            _ if power == Some(Power::Off) && self.kind(world) == Kind::Sockets && view.reading == Reading::Refused => {
                Some("off to a device that refuses us")
            }
            _ if power == Some(Power::Off) && !self.quorum => Some("off without quorum"),
            _ if power == Some(Power::Off) && !self.admitted => Some("off of a remediation that is not counted"),
            _ if power == Some(Power::Off) && self.leave == Leave::Deleted => Some("off after the deletion"),
            Act::Do(Deed::Unclaim) | Act::Finish if stays => Some("left before the deletion"),
            Act::Enter(Phase::Isolating { level, .. })
                if view.identity == Identity::Other && level == case.levels.now =>
            {
                Some("goes on although the BMC names another machine")
            }
            Act::Do(Deed::Retract) => None,
            _ if view.barrier && self.reading(world) == Reading::Running => {
                Some("NoExecute seen on a live node, and not retracted")
            }
            _ if releases && case.reading == Reading::Running => Some("release of a node read Running"),
            Act::Idle | Act::Looked(_) | Act::Enter(_) | Act::Do(_) | Act::Send(..) | Act::Finish => None,
        }
    }

    /// What must hold of every state.
    pub fn wrong(&self, world: &World) -> Option<&'static str> {
        let cycle = world.restore
            && !self.ladder.by_hand
            && self.off_sent
            && !self.gave_up
            && matches!(self.phase, Phase::Done { .. });
        let in_hand = |power| self.hands.iter().any(|h| matches!(h.act, Act::Send(p, ..) if p == power));
        let late_off = self.pend_off > 0 || self.ladder.late > 0 || in_hand(Power::Off);
        let late_on = self.pend_on > 0 || in_hand(Power::On);
        // Late offs of a remediation that halted after its last off are covered by the cycle of the next one (L6, L1).
        let covered =
            !self.gone && matches!(self.phase, Phase::Halted { off: Some(_), rest: Rest { yielded: true, .. }, .. });
        let only_bmc = world.levels == [Kind::Bmc];
        let bad_bmc = !only_bmc || world.lies || world.lost || world.down || world.locked || world.owner || !world.uuid;
        let bad_order = world.wrong_from_start || world.unresolved;
        // A BMC that was sent no off is sent no on.
        let unasked = world.stays_off && !self.ladder.begun[0];
        let excuse = bad_bmc || bad_order || world.timed_out || world.node_gone || world.other || world.quorum;
        let counted = !world.down && !world.locked && !world.orders && !world.quorum && !world.unresolved && only_bmc;
        // A Node restored from a backup brings our barrier with it.
        let new_node = world.backup && matches!(self.leave, Leave::NodeGone { .. });
        match self {
            _ if self.bad.is_some() => self.bad,
            _ if !excuse && matches!(self.phase, Phase::Halted { .. }) => Some("Halted, and nothing was wrong"),
            _ if self.new && self.proc && !self.excused => Some("two live writers"),
            _ if world.volumes && self.volume == Volume::Detached && self.proc && !self.excused => {
                Some("a volume detached from a live writer")
            }
            _ if self.barrier && self.on && !world.owner && !world.returns && !self.other && !new_node => {
                Some("NoExecute on a live node")
            }
            _ if self.gone && (self.cordoned || self.barrier && !self.other) => Some("something of ours left behind"),
            _ if self.barrier
                && !new_node
                && matches!(self.phase, Phase::Done { rest: Rest { quiet: None | Some(1..), .. } }) =>
            {
                Some("NoExecute in Done")
            }
            _ if self.other && (late_on || late_off && !covered) => Some("two remediations command one node"),
            _ if world.uuid && !self.neighbour && !world.no_plug && !world.miswired => {
                Some("another machine was commanded")
            }
            _ if self.gone && cycle && !world.fewer && self.ladder.feeds.contains(&false) => Some("a socket left off"),
            _ if self.gone && cycle && !self.on && !unasked => Some("node left off after a finished cycle"),
            _ if self.gone && cycle && !self.neighbour && !world.no_plug => Some("another machine left off"),
            _ if self.gone && cycle && late_off => Some("an off in flight after a finished cycle"),
            _ if self.sends > world.attempts && counted => Some("more isolations than attempts"),
            _ => None,
        }
    }
}
